"""Tokenizers of the published classes with vocabularies made here: nothing is downloaded, and any text is encoded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

WORDS = (
    "a", "an", "the", "of", "on", "in", "with", "and", "photo", "picture", "red", "green", "blue", "yellow", "black",
    "white", "big", "small", "cat", "dog", "tree", "house", "flower", "sun", "sea", "face", "sky", "car",
)  # fmt: skip
"""Words that are one token. All others are spelled."""

START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_TOKENS = 77
T5_TOKENS = 120
SENTINELS = 100
"""T5's `<extra_id_…>` tokens, which its tokenizer class adds where the vocabulary lacks them."""

QWEN_TOKENS = 131_072
GEMMA_TOKENS = 8192
PAD, MESSAGE, MESSAGE_END, THINK, THOUGHT = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"
"""Of Qwen's chats: padding, the two ends of a message, and what stands around a thought."""

CHAT_TEMPLATE = f"""\
{{%- for message in messages -%}}
{MESSAGE}{{{{ message.role }}}}
{{{{ message.content }}}}{MESSAGE_END}
{{% endfor -%}}
{{%- if add_generation_prompt -%}}
{MESSAGE}assistant
{{% if enable_thinking is defined and not enable_thinking -%}}
{THINK}

{THOUGHT}

{{% endif -%}}
{{%- endif -%}}
"""
"""What Qwen3's own makes of messages of plain text: a thought left out is an empty one."""

BERT_TOKENS = 77
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""BERT's tokens that stand for no text."""

SPACE = "▁"
GEMMA_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
"""The first tokens of Gemma's vocabulary."""


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary, in the published order.

    Printable bytes stand for themselves and come first, so that `!` is token 0: some pipelines pad with it.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _byte_pair_model(words: Iterable[str]) -> Any:
    """Byte pair encoding over single bytes as CLIP's, with the merges that make each of `words` one token."""
    symbols = [symbol + end for end in ("", "</w>") for symbol in byte_symbols()]
    return merged_model(symbols, words, (START, END), end_of_word_suffix="</w>")


def merged_model(symbols: Sequence[str], words: Iterable[str], more: Sequence[str] = (), **settings: Any) -> Any:
    """Byte pair encoding with the merges that make each of `words` one token.

    Args:
        symbols: the first tokens, all that words are spelled with.
        words: as the model sees them.
        more: the last tokens.
        settings: of the model.
    """
    from tokenizers.models import BPE

    def model(*last: str) -> Any:
        vocabulary = dict.fromkeys([*symbols, *map("".join, merges), *last])  # two merges may make the same token
        return BPE({token: index for index, token in enumerate(vocabulary)}, merges, **settings)

    merges: list[tuple[str, str]] = []
    for word in words:
        while len(parts := model().tokenize(word)) > 1:
            merges.append((parts[0].value, parts[1].value))
    return model(*more)


def tiny_clip_tokenizer(max_tokens: int = CLIP_TOKENS, *, pad_token: str = END, words: Iterable[str] = WORDS) -> Any:
    """A `CLIPTokenizer` over single bytes and `words`, read from `vocab.json` and `merges.txt` like any other.

    The start and end tokens are the last two of the vocabulary, as published.

    Args:
        max_tokens: its `model_max_length`.
        pad_token: the end token as in Stable Diffusion 1, or `"!"` as in the second tokenizer of later pipelines.
        words: those that are one token; all others are spelled.
    """
    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as scratch:
        _byte_pair_model(words).save(scratch)
        return _anonymous(
            CLIPTokenizer.from_pretrained(
                scratch, model_max_length=max_tokens, pad_token=pad_token, bos_token=START, eos_token=END, unk_token=END
            )
        )


def tiny_t5_tokenizer(max_tokens: int = T5_TOKENS) -> Any:
    """A `T5TokenizerFast` over ASCII characters and `WORDS`; other characters are its unknown token.

    Args:
        max_tokens: its `model_max_length`.
    """
    from tokenizers import Tokenizer, models
    from transformers import T5TokenizerFast

    pieces: list[tuple[str, float]] = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -2.0) for word in WORDS]
    pieces += [(chr(code), -4.0) for code in range(ord("!"), ord("~") + 1)]
    pieces += [(f"<extra_id_{index}>", 0.0) for index in reversed(range(SENTINELS))]
    with tempfile.TemporaryDirectory() as scratch:
        Tokenizer(models.Unigram(pieces, unk_id=2)).save(str(Path(scratch) / "tokenizer.json"))
        return _anonymous(T5TokenizerFast.from_pretrained(scratch, model_max_length=max_tokens, extra_ids=SENTINELS))


def tiny_qwen_tokenizer(max_tokens: int = QWEN_TOKENS, *, words: Iterable[str] = WORDS) -> Any:
    """A `Qwen2TokenizerFast` over single bytes and `words`, with a chat template as Qwen3's.

    It is read from `vocab.json` and `merges.txt` like any other. A word is one token behind a space; `!` is token 0.

    Args:
        max_tokens: its `model_max_length`.
        words: those that are one token; all others are spelled.
    """
    from transformers import AddedToken, Qwen2TokenizerFast

    space = "Ġ"  # the symbol of the byte 32
    added = (PAD, MESSAGE, MESSAGE_END, THINK, THOUGHT)
    with tempfile.TemporaryDirectory() as scratch:
        merged_model(byte_symbols(), [space + word for word in words], added).save(scratch)
        tokenizer = Qwen2TokenizerFast.from_pretrained(
            scratch, model_max_length=max_tokens, unk_token=PAD, pad_token=PAD, eos_token=MESSAGE_END
        )
    tokenizer.add_tokens([AddedToken(token, special=token not in (THINK, THOUGHT)) for token in added])
    tokenizer.chat_template = CHAT_TEMPLATE
    return _anonymous(tokenizer)


def tiny_gemma_tokenizer(max_tokens: int = GEMMA_TOKENS, *, words: Iterable[str] = WORDS) -> Any:
    """A `GemmaTokenizerFast` over ASCII characters and `words`; other characters are spelled in bytes.

    It puts `<bos>` before a text, and pads on the left unless a pipeline says otherwise, as published.

    Args:
        max_tokens: its `model_max_length`.
        words: those that are one token behind a space; all others are spelled.
    """
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from transformers import GemmaTokenizerFast

    pad, end, start, unknown, _ = GEMMA_SPECIAL
    characters = [SPACE, "\n", *(chr(code) for code in range(ord("!"), ord("~") + 1))]
    symbols = [*GEMMA_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    model = merged_model(
        symbols, [SPACE + word for word in words], unk_token=unknown, byte_fallback=True, fuse_unk=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start}:0 $A:0", pair=f"{start}:0 $A:0 {start}:1 $B:1", special_tokens=[(start, symbols.index(start))]
    )
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save(str(Path(scratch) / "tokenizer.json"))
        return _anonymous(
            GemmaTokenizerFast.from_pretrained(
                scratch, model_max_length=max_tokens, pad_token=pad, eos_token=end, bos_token=start, unk_token=unknown
            )
        )


def tiny_bert_tokenizer(max_tokens: int = BERT_TOKENS, *, words: Iterable[str] = WORDS) -> Any:
    """A `BertTokenizer` over ASCII characters and `words`, read from `vocab.txt` like any other.

    It is uncased and puts `[CLS]` before a text and `[SEP]` behind it, as published; other characters are `[UNK]`.

    Args:
        max_tokens: its `model_max_length`.
        words: those that are one token; all others are spelled.
    """
    from transformers import BertTokenizer

    characters = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
    spelled = [f"##{character}" for character in characters if character.isalnum()]
    vocabulary = dict.fromkeys([*BERT_SPECIAL, *characters, *spelled, *words])  # "a" is a word and a character
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "vocab.txt"
        path.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        return _anonymous(BertTokenizer.from_pretrained(scratch, model_max_length=max_tokens))


def _anonymous(tokenizer: Any) -> Any:
    """Without the name of the scratch folder it was read from, which would be saved with it."""
    tokenizer.name_or_path = ""
    tokenizer.init_kwargs.pop("name_or_path", None)
    return tokenizer
