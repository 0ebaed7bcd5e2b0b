"""The prompts of a set: a list where they are few, rows of a memory-mapped `datasets.Dataset` where they are many."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Any, overload

import numpy as np

from ..errors import RequestError
from ..protocols import Prompt
from ..utils.lazy_sequence import LazySequence, through
from ..utils.messages import shown
from ..utils.paths import cache_place

if TYPE_CHECKING:
    from datasets import Dataset

HELD_PROMPTS = 2**14
HELD_CHARACTERS = 2**22
"""A set of at most so many prompts with at most so many characters is held in memory as a list."""
LONGEST = 2**20
"""Characters of a prompt; text encoders read a few hundred tokens."""
BATCH = 2**12
"""Rows that are written or read at a time."""
FIELDS = ("text", "id", "category", "file")


@dataclass(frozen=True, repr=False)
class PromptList:
    """A prompt set that is simply a list, or any other sequence: it counts, iterates and is indexed as one.

    Attributes:
        name: what reports call it.
        prompts: in a fixed order.
    """

    name: str
    prompts: Sequence[Prompt]

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    @overload
    def __getitem__(self, place: int) -> Prompt: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Prompt]: ...

    def __getitem__(self, place: int | slice) -> Prompt | Sequence[Prompt]:
        return self.prompts[place]

    def __repr__(self) -> str:
        return f"<prompt set {self.name!r}, {len(self):,} prompt{'s' * (len(self) != 1)}>"


@dataclass(frozen=True, eq=False, repr=False)
class PromptTable(LazySequence[Prompt]):
    """Prompts in a dataset with the columns `FIELDS`; each is read when it is asked for.

    Attributes:
        rows: the dataset.
    """

    rows: Dataset

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, index: int) -> Prompt:
        return Prompt(**self.rows[index])

    def through(self, indices: Iterable[int]) -> Iterator[Prompt]:
        for batch in _batches(indices):
            columns = self.rows[batch]
            yield from map(Prompt, *(columns[field] for field in FIELDS))


def _batches(indices: Iterable[int]) -> Iterator[range | list[int]]:
    if isinstance(indices, range):  # which a dataset reads as a slice
        return (indices[start : start + BATCH] for start in range(0, len(indices), BATCH))
    rest = iter(indices)
    return iter(lambda: list(islice(rest, BATCH)), [])


def held_or_mapped(prompts: Iterable[Prompt]) -> Sequence[Prompt]:
    """Prompts as a list where they are few, else in a file without a name that is mapped into memory.

    The copy makes what was read independent of its source, which may be changed or removed during a run.

    Raises:
        RequestError: the file cannot be written.
    """
    rest, held, characters = iter(prompts), [], 0
    for prompt in rest:
        held.append(prompt)
        characters += len(prompt.text)
        if len(held) > HELD_PROMPTS or characters > HELD_CHARACTERS:
            first, held = iter(held), []  # which frees the list once it is written
            return _mapped(chain(first, rest))
    return held


def chosen(prompts: Sequence[Prompt], places: np.ndarray) -> Sequence[Prompt]:
    """The prompts at these indices, rising, `(count,)`."""
    if isinstance(prompts, list):
        return [prompts[place] for place in places.tolist()]
    if isinstance(prompts, PromptTable) and len(places) > HELD_PROMPTS:
        return PromptTable(prompts.rows.select(places))
    return held_or_mapped(through(prompts, places.tolist()))


def _mapped(prompts: Iterator[Prompt]) -> PromptTable:
    """Prompts as an Arrow stream, through pyarrow's writer: `Dataset.from_generator` would pickle the generator to
    name a cache file, which this one must not outlive."""
    import pyarrow
    from datasets import Dataset

    schema = pyarrow.schema([(field, pyarrow.string()) for field in FIELDS])
    with _sentences():
        file = _temporary_file()
    with file:
        stream = pyarrow.ipc.new_stream(file, schema)
        while batch := list(islice(prompts, BATCH)):
            columns = [[getattr(prompt, field) for prompt in batch] for field in FIELDS]
            with _sentences():
                stream.write_batch(pyarrow.record_batch([pyarrow.array(column) for column in columns], schema=schema))
        with _sentences():
            stream.close()
            file.flush()
            return PromptTable(Dataset.from_file(f"/dev/fd/{file.fileno()}"))


def _temporary_file() -> IO[bytes]:
    """A file that no folder lists: its space is free again once nothing maps it, however the process ends.

    It lies below `$DIPP_CACHE/scratch` (`~/.cache/dipp/scratch`), because a folder for temporary files may itself be
    memory; where nothing can be written there, among the temporary files.
    """
    folder = cache_place("scratch")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except (OSError, RuntimeError):  # no such place, or no home
        usable = False
    return tempfile.TemporaryFile(dir=str(folder) if usable else None)


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RequestError(
            f"Cannot write a temporary file of prompts: {error.strerror or error}. Make room, or name another folder "
            "with DIPP_CACHE."
        ) from error


def checked(prompts: Iterable[Prompt], source: str, of_images: bool = False) -> Iterator[Prompt]:
    """Prompts without the empty ones; what cannot be a prompt is refused, with its row.

    Args:
        prompts: as they were read.
        source: where from, for messages: `"prompt file cats.csv"`.
        of_images: keep the empty prompts of named images.

    Raises:
        RequestError: a prompt contains NUL, as binary files do, or half of a character, or is too long.
    """
    binary = False
    for prompt in prompts:
        if not prompt.text.strip() and not (of_images and prompt.file):
            continue
        if len(prompt.text) > LONGEST:
            raise RequestError(
                f"The {source}: the prompt with the id '{shown(prompt.id)}' has {len(prompt.text):,} "
                f"characters; expected {LONGEST:,} at most."
            )
        binary = binary or "\0" in prompt.text
        try:
            "".join((prompt.text, prompt.id, prompt.category, prompt.file)).encode()
        except UnicodeEncodeError:
            raise RequestError(
                f"The {source}: the prompt with the id '{shown(prompt.id)}' contains half of a surrogate pair, which "
                "is not a character."
            ) from None
        yield prompt
    if binary:
        raise RequestError(f"The {source} is binary; expected one prompt a line.")


def batched_rows(tables: Iterable[Any], decoded: int = 64) -> Iterator[dict[str, Any]]:
    """The rows of Arrow tables or batches, of which few are Python objects at a time: a long text that stands in many
    rows is one text in Arrow."""
    for table in tables:
        for start in range(0, len(table), decoded):
            yield from table.slice(start, decoded).to_pylist()
