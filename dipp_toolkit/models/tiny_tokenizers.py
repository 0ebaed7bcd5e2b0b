"""Tokenizers of the published classes with vocabularies made here: nothing is downloaded, and any text is encoded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
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


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary, in the published order.

    Printable bytes stand for themselves and come first, so that `!` is token 0: some pipelines pad with it.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _byte_pair_model(words: Iterable[str]) -> Any:
    """Byte pair encoding over single bytes, with the merges that make each of `words` one token."""
    from tokenizers.models import BPE

    def model(*more: str) -> Any:
        vocabulary = dict.fromkeys([*symbols, *map("".join, merges), *more])  # two merges may make the same token
        return BPE({token: index for index, token in enumerate(vocabulary)}, merges, end_of_word_suffix="</w>")

    symbols = [symbol + end for end in ("", "</w>") for symbol in byte_symbols()]
    merges: list[tuple[str, str]] = []
    for word in words:
        while len(parts := model().tokenize(word)) > 1:
            merges.append((parts[0].value, parts[1].value))
    return model(START, END)


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


def _anonymous(tokenizer: Any) -> Any:
    """Without the name of the scratch folder it was read from, which would be saved with it."""
    tokenizer.name_or_path = ""
    tokenizer.init_kwargs.pop("name_or_path", None)
    return tokenizer
