"""Networks of equal blocks, run short: what a pass costs is linear in how many of them stand in a row.

A transformer is some layers, then $n$ equal blocks, then some layers. Its operations and the bytes that it keeps are
$a + n b$, and so is its peak from two blocks on. Passes with $d$ and with $d + 1$ blocks therefore give those of any
$n$ exactly, for a tenth of the work.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

DEPTH = 2
"""Blocks that a short row keeps: the first and the last one differ in what is alive beside them."""

WORTHWHILE = 2 * DEPTH + 2
"""Blocks in a row from which two short passes are less work than a long one."""


@dataclass(frozen=True)
class Row:
    """Equal blocks, one after the other.

    Attributes:
        blocks: the container they stand in.
        start: place of the first.
        count: how many they are.
    """

    blocks: nn.ModuleList | nn.Sequential
    start: int
    count: int


def rows_of(network: nn.Module) -> Iterator[Row]:
    """The rows of at least `WORTHWHILE` equal blocks of a network; the blocks' own rows are not searched for."""
    for child in network.children():
        inside_rows: set[int] = set()
        if isinstance(child, nn.ModuleList | nn.Sequential):
            signatures = [_signature(block) for block in child]
            start = 0
            while start < len(signatures):
                count = 1
                while start + count < len(signatures) and signatures[start + count] == signatures[start]:
                    count += 1
                if count >= WORTHWHILE:
                    yield Row(child, start, count)
                    inside_rows |= {id(block) for block in child[start : start + count]}
                start += count
            for block in child:
                if id(block) not in inside_rows:
                    yield from rows_of(block)
        else:
            yield from rows_of(child)


def _signature(block: nn.Module) -> tuple[object, ...]:
    """What equal blocks have in common: kind, options that they print, and shapes."""
    shapes = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in block.named_parameters())
    return type(block), repr(block), shapes


def lengths_of(rows: Iterable[Row]) -> tuple[int, ...]:
    """The lengths of rows, each once, ascending."""
    return tuple(sorted({row.count for row in rows}))


def counts_of(network: nn.Module) -> tuple[int, ...]:
    """The lengths of a network's rows, each once, ascending."""
    return lengths_of(rows_of(network))


def shorten(network: nn.Module, depths: Mapping[int, int], rows: Sequence[Row] | None = None) -> None:
    """Leave so many blocks of every row, in place.

    Args:
        network: whose rows are cut.
        depths: blocks to keep, by the row's length; a row of another length stays as it is.
        rows: of the network, where they have been found already.
    """
    for row in tuple(rows_of(network)) if rows is None else rows:
        if row.count in depths:
            del row.blocks[row.start + depths[row.count] : row.start + row.count]


def short_copy(network: nn.Module, rows: Sequence[Row], depths: Mapping[int, int]) -> nn.Module:
    """A copy with so many blocks of every row. The network stays whole, and its other blocks are not copied.

    Args:
        network: to copy.
        rows: its rows, as `rows_of` finds them.
        depths: as for `shorten`.
    """
    whole = [(row.blocks, list(row.blocks)) for row in rows]
    try:
        shorten(network, depths, rows)
        return copy.deepcopy(network)
    finally:
        for blocks, members in whole:
            blocks._modules.clear()
            blocks._modules.update({str(place): block for place, block in enumerate(members)})


def depths_to_run(counts: tuple[int, ...]) -> tuple[dict[int, int], dict[int, dict[int, int]]]:
    """The short networks that have to be run.

    Args:
        counts: lengths of the rows.

    Returns:
        Depths of the shortest network, and by length those of the network with one more block in the rows of it.
    """
    shortest = dict.fromkeys(counts, DEPTH)
    return shortest, {count: {**shortest, count: DEPTH + 1} for count in counts}


def extrapolated(shortest: int, longer: Mapping[int, int]) -> int:
    """A number of the whole network from those of its short ones: $s + sum_n (n - d) (l_n - s)$.

    Args:
        shortest: the number with `DEPTH` blocks in every row.
        longer: by length of the rows, the number with one more block in the rows of this length.
    """
    return shortest + sum((count - DEPTH) * (number - shortest) for count, number in longer.items())
