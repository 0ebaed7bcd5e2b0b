"""Prompts from a text file, one a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import RequestError
from .roles import Prompt


@dataclass(frozen=True)
class PromptList:
    """A prompt set that is simply a list."""

    name: str
    prompts: Sequence[Prompt]


def read_prompt_file(path: Path) -> PromptList:
    """Read a UTF-8 text file; blank lines and lines that start with `#` are passed over.

    Raises:
        RequestError: the file is missing, is no text, or holds no prompt.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"Cannot read the prompt file {path}: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise RequestError(f"The prompt file {path} is no UTF-8 text; expected one prompt a line.") from None
    lines = [line.strip() for line in text.splitlines()]
    prompts = [Prompt(line, str(number)) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    if not prompts:
        raise RequestError(f"The prompt file {path} holds no prompt; expected one prompt a line.")
    if "\0" in text:
        raise RequestError(f"The prompt file {path} is binary; expected one prompt a line.")
    return PromptList(path.stem, prompts)
