"""Whether two folders hold one tokenizer: by their files, or where these differ by what it makes of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import RequestError, first_line
from ...utils.content_digests import file_digest
from ...utils.json_files import read_json
from ..files.folders import quiet_loading

PROBES = (
    "", "a red fox", "A Photo of 3 Cats, 4K -- by Van Gogh!", "  two  spaces\tand a tab\n", "naïve café, Ünïcödé",
    "小さな猫", "🦊🎂 emoji", "(parentheses) [brackets] {braces} <tags> #hash @at https://example.org/a?b=c",
    "antidisestablishmentarianism", "it's 10:30; don't 'quote' \"this\"",
)  # fmt: skip
PADDED = 24
LONGEST = 10**6
"""More tokens than any text encoder reads: such a `model_max_length` means that none is set."""


def tokenizer_difference(left: Path, right: Path, name: str) -> str | None:
    """In what two pipelines' tokenizers differ, in a few words; None where they are the same.

    Args:
        left: a pipeline's folder.
        right: the other's.
        name: of the component.

    Raises:
        RequestError: one cannot be loaded.
    """
    if _files(left / name) == _files(right / name):
        return None
    tokenizers = [_load(folder, name) for folder in (left, right)]
    for what, property_of in (("vocabulary", _vocabulary), ("special tokens", _special), ("length", _length)):
        if property_of(tokenizers[0]) != property_of(tokenizers[1]):
            return f"another {what}" if what != "special tokens" else "other special tokens"
    for text in PROBES:
        ids = [each(text, padding="max_length", max_length=PADDED, truncation=True).input_ids for each in tokenizers]
        if ids[0] != ids[1]:
            return f"other tokens for {text!r}"
    return None


def _files(place: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(place.iterdir()) if path.is_file()}


def _load(folder: Path, name: str) -> Any:
    import transformers

    kind: Any = getattr(transformers, str(read_json(folder / "model_index.json")[name][1]), None)
    try:
        with quiet_loading():
            return kind.from_pretrained(folder / name, trust_remote_code=False)
    except Exception as error:  # tokenizers raise errors of several libraries
        raise RequestError(f"The tokenizer in {folder / name} cannot be loaded: {first_line(error)}") from error


def _vocabulary(tokenizer: Any) -> dict[str, int]:
    return dict(tokenizer.get_vocab())


def _special(tokenizer: Any) -> list[Any]:
    return [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]


def _length(tokenizer: Any) -> int | None:
    """None where it says none: that of the text encoder is taken then."""
    length = tokenizer.model_max_length
    return length if isinstance(length, int) and length < LONGEST else None
