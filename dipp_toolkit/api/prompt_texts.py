"""Prompts as somebody gives them to a function: a text, a list, a name, a path, a dataset or a set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..prompts.loading import load_prompts
from ..prompts.subsets import split_name
from ..protocols import texts
from ..registry import get_registry
from ..utils.assignments import PROMPT_FILES


def named_prompts(given: Any) -> list[str] | None:
    """The texts of a set, a list, a file or a registered name; None of a text that is a prompt itself.

    Raises:
        RequestError: they cannot be read.
    """
    if isinstance(given, list | tuple) and all(isinstance(one, str) for one in given):
        return list(given)
    if isinstance(given, str) and not _is_name(given):
        return None
    return list(texts(load_prompts(given)))


def _is_name(text: str) -> bool:
    name = split_name(text)[0]
    return name in get_registry().entries["prompts"] or Path(name).suffix.lower() in PROMPT_FILES
