"""Prompts that stay in their file: where each begins is kept outside of memory, and it is read when it is asked for."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import RequestError, RunError
from ..protocols import Prompt
from ..utils.lazy_sequence import LazySequence
from ..utils.line_reader import Lines
from ..utils.messages import shown
from ..utils.spill import Rows

HELD_PROMPTS = 2**14
HELD_CHARACTERS = 2**22
"""A set of at most so many prompts with at most so many characters is held in memory as a list."""

LONGEST = 2**20
"""Characters of a prompt; text encoders read a few hundred tokens."""

Place = tuple[int, int, int]
"""Where a prompt's record begins, the number it counts from there, and the CRC-32 of its bytes."""

Reader = Callable[[Lines, int], Iterator[tuple[Place, Prompt]]]
"""Reads prompts from lines on; the second argument is the number of the first record."""

PLACE = np.dtype([("position", "<i8"), ("number", "<u4"), ("check", "<u4")])


def held_or_indexed(
    path: Path, file: IO[bytes], found: Iterable[tuple[Place, Prompt]], reader: Reader
) -> Sequence[Prompt]:
    """Prompts as a list where they are few, and as an index of the file where they are many.

    Args:
        path: what messages call the file.
        file: a regular one; it stays open as long as prompts are read from it, whatever becomes of its name.
        found: every prompt with its place, in order.
        reader: finds a prompt again from its place.
    """
    held: list[Prompt] | None = []
    characters = 0
    places = Rows(PLACE)
    for place, prompt in found:
        places.append(place)
        if held is not None:
            held.append(prompt)
            characters += len(prompt.text)
            if len(held) > HELD_PROMPTS or characters > HELD_CHARACTERS:
                held = None
    return IndexedPrompts(path, file, places.array(), reader) if held is None else held


def held_if_few(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    """Prompts as a list where they are few, and as they are where they are many."""
    if len(prompts) > HELD_PROMPTS:
        return prompts
    held, characters = [], 0
    for one in prompts:
        held.append(one)
        characters += len(one.text)
        if characters > HELD_CHARACTERS:
            return prompts
    return held


@dataclass(frozen=True, eq=False, repr=False)
class IndexedPrompts(LazySequence[Prompt]):
    """The prompts of an open file.

    Attributes:
        path: what messages call it.
        file: the open file.
        places: a `PLACE` for each prompt.
        reader: reads a prompt from its place.
    """

    path: Path
    file: IO[bytes]
    places: np.ndarray
    reader: Reader

    def __len__(self) -> int:
        return len(self.places)

    def at(self, index: int) -> Prompt:
        """The prompt at an index.

        Raises:
            RunError: the file is not what it was when the set was loaded.
        """
        return self._read(Lines(self.file.fileno()), index)

    def through(self, indices: Iterable[int]) -> Iterator[Prompt]:
        lines = Lines(self.file.fileno())
        return (self._read(lines, index) for index in indices)

    def _read(self, lines: Lines, index: int) -> Prompt:
        position, number, check = self.places[index].item()
        lines.go_to(position)
        try:
            (_, _, found), prompt = next(self.reader(lines, number))
        except (StopIteration, RequestError, UnicodeDecodeError, csv.Error):
            found, prompt = -1, None
        if prompt is None or found != check:
            raise RunError(
                f"The prompt file {self.path} was changed while it is in use: prompt {index + 1} is not what it was. "
                "Start again with a copy that stays as it is."
            )
        return prompt


def checked(found: Iterable[tuple[Any, Prompt]], path: Path, of_images: bool = False) -> Iterator[tuple[Any, Prompt]]:
    """Prompts without the empty ones, unless they are of named images and those are asked for; what no prompt can be is
    refused, with its row.

    Raises:
        RequestError: a prompt holds NUL, as binary files do, or half of a character.
    """
    binary = False
    for place, prompt in found:
        if not prompt.text.strip() and not (of_images and prompt.file):
            continue
        if len(prompt.text) > LONGEST:
            raise RequestError(
                f"The prompt file {path}: the prompt with the id '{shown(prompt.id)}' has {len(prompt.text):,} "
                f"characters; expected {LONGEST:,} at most."
            )
        binary = binary or "\0" in prompt.text
        try:
            prompt.text.encode()
        except UnicodeEncodeError:
            raise RequestError(
                f"The prompt file {path}: the prompt with the id '{prompt.id}' holds half of a surrogate pair; that is "
                "no character."
            ) from None
        yield place, prompt
    if binary:
        raise RequestError(f"The prompt file {path} is binary; expected one prompt a line.")
