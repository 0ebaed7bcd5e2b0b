"""Sequences whose items are made on access: a view of ten million costs as much memory as one of ten."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import index as as_index
from typing import Generic, SupportsIndex, TypeVar, overload

import numpy as np

Item = TypeVar("Item")
Made = TypeVar("Made")


class LazySequence(Sequence[Item]):
    """A sequence that needs only `__len__` and `at`. Slices are views; it equals what has the same items."""

    __hash__ = None  # type: ignore[assignment]

    @abstractmethod
    def at(self, index: int) -> Item:
        """The item at an index from 0 to below the length."""

    def through(self, indices: Iterable[int]) -> Iterator[Item]:
        """The items at these indices, one after the other; rising indices may be cheaper than `at` for each."""
        return map(self.at, indices)

    def __iter__(self) -> Iterator[Item]:
        return self.through(range(len(self)))

    @overload
    def __getitem__(self, index: SupportsIndex) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return Chosen(self, range(len(self))[index])
        place, length = as_index(index), len(self)
        if not -length <= place < length:
            raise IndexError(f"The sequence has {length} items and none at {place}.")
        return self.at(place % length)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)}>"


def through(items: Sequence[Item], indices: Iterable[int]) -> Iterator[Item]:
    """`LazySequence.through` of any sequence."""
    return items.through(indices) if isinstance(items, LazySequence) else (items[index] for index in indices)


@dataclass(frozen=True, eq=False, repr=False)
class Chosen(LazySequence[Item]):
    """Some items of another sequence.

    Attributes:
        items: the other one.
        places: where each of these stands in it, as a range or an array of integers.
    """

    items: Sequence[Item]
    places: range | np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def at(self, index: int) -> Item:
        return self.items[int(self.places[index])]

    def through(self, indices: Iterable[int]) -> Iterator[Item]:
        return through(self.items, (int(self.places[index]) for index in indices))


@dataclass(frozen=True, eq=False, repr=False)
class Mapped(LazySequence[Made], Generic[Item, Made]):
    """A function of every item of another sequence.

    Attributes:
        items: the other one.
        function: called anew on each access of an item.
    """

    items: Sequence[Item]
    function: Callable[[Item], Made]

    def __len__(self) -> int:
        return len(self.items)

    def at(self, index: int) -> Made:
        return self.function(self.items[index])

    def through(self, indices: Iterable[int]) -> Iterator[Made]:
        return map(self.function, through(self.items, indices))


def evenly_spaced(total: int, count: int) -> list[int]:
    """`count` indices below `total`, spread evenly and beginning with 0; some occur again where there are too few."""
    return [index * total // count for index in range(count)]
