"""Tiny language models that encode prompts: tokenizers of the published classes, and encoders for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma2Model, GemmaTokenizerFast, Qwen2TokenizerFast, Qwen3Model

from dipp_toolkit.models.tiny_pipelines import tiny_gemma2_encoder, tiny_qwen3_encoder
from dipp_toolkit.models.tiny_tokenizers import WORDS, byte_symbols, tiny_gemma_tokenizer, tiny_qwen_tokenizer

TEXT = "A red CAT's  façade, 猫 \x07 12\t{~}\n"
MESSAGE = [{"role": "user", "content": "a red cat"}]


def tokens(tokenizer: Any, text: str) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids))


def test_qwens_encodes_any_text_and_has_no_start() -> None:
    qwen = tiny_qwen_tokenizer()
    assert isinstance(qwen, Qwen2TokenizerFast)
    assert qwen.decode(qwen(TEXT).input_ids) == TEXT
    assert qwen("").input_ids == []
    assert tokens(qwen, "a red cat") == ["a", "Ġred", "Ġcat"]
    assert all(len(qwen(f" {word}").input_ids) == 1 for word in WORDS)
    assert qwen.convert_tokens_to_ids("!") == 0 and set(byte_symbols()) < qwen.get_vocab().keys()
    last = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    assert qwen.convert_ids_to_tokens(range(len(qwen) - 5, len(qwen))) == last
    assert (qwen.pad_token, qwen.eos_token, qwen.padding_side) == (last[0], last[2], "right")
    assert tiny_qwen_tokenizer(7, words=("zebra",)).model_max_length == 7


def test_qwens_chats_are_qwen3s() -> None:
    def chat(**settings: Any) -> str:
        text = tiny_qwen_tokenizer().apply_chat_template(MESSAGE, tokenize=False, **settings)
        assert isinstance(text, str)
        return text

    user, answer = "<|im_start|>user\na red cat<|im_end|>\n", "<|im_start|>assistant\n"
    assert chat() == user
    assert chat(add_generation_prompt=True) == chat(add_generation_prompt=True, enable_thinking=True) == user + answer
    thoughtless = f"{user}{answer}<think>\n\n</think>\n\n"
    assert chat(add_generation_prompt=True, enable_thinking=False) == thoughtless
    assert tokens(tiny_qwen_tokenizer(), user)[0] == "<|im_start|>"


def test_gemmas_encodes_any_text_behind_a_start() -> None:
    gemma = tiny_gemma_tokenizer()
    assert isinstance(gemma, GemmaTokenizerFast)
    assert gemma.decode(gemma(TEXT).input_ids, skip_special_tokens=True) == TEXT
    assert gemma.unk_token_id not in gemma(TEXT).input_ids
    assert tokens(gemma, "") == ["<bos>"]
    assert tokens(gemma, "a red cat") == ["<bos>", "a", "▁red", "▁cat"]
    assert all(len(gemma(f" {word}").input_ids) == 2 for word in WORDS)
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    assert gemma.convert_ids_to_tokens(range(4)) == special
    assert (gemma.pad_token, gemma.eos_token, gemma.bos_token, gemma.unk_token) == tuple(special)
    assert gemma.padding_side == "left"
    assert tokens(tiny_gemma_tokenizer(words=("zebra",)), " zebra") == ["<bos>", "▁zebra"]


@pytest.mark.parametrize("make", [tiny_qwen_tokenizer, tiny_gemma_tokenizer])
def test_a_saved_tokenizer_is_itself(make: Callable[..., Any], tmp_path: Path) -> None:
    tokenizer = make(99)
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert again(TEXT).input_ids == tokenizer(TEXT).input_ids
    assert (again.model_max_length, again.padding_side) == (99, tokenizer.padding_side)
    assert again.chat_template == tokenizer.chat_template
    assert not [path for path in tmp_path.iterdir() if str(tmp_path.parent) in path.read_text()]


@pytest.mark.parametrize(
    ("make", "encoder", "kind"),
    [(tiny_qwen_tokenizer, tiny_qwen3_encoder, Qwen3Model), (tiny_gemma_tokenizer, tiny_gemma2_encoder, Gemma2Model)],
)
def test_an_encoder_reads_its_tokenizers_text_from_the_left(
    make: Callable[..., Any], encoder: Callable[..., Any], kind: type
) -> None:
    tokenizer = make()
    tokenizer.padding_side = "right"
    model = encoder(tokenizer, width=24, layers=3)
    assert isinstance(model, kind)
    inputs = tokenizer(["a red cat", "a red dog", "a"], padding="max_length", max_length=12, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    assert len(states) == 4 and states[-2].shape == (3, 12, 24)
    red = len(tokens(tokenizer, "a red"))
    torch.testing.assert_close(states[-2][0, :red], states[-2][1, :red])
    assert (states[-2][0, red] - states[-2][1, red]).abs().max() > 1e-3
