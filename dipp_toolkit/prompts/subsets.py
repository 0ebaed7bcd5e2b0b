"""Parts of a prompt set: by category, and a seeded sample of a size."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qsl

import numpy as np

from ..errors import RequestError
from ..protocols import Prompt, PromptSet
from ..utils.lazy_sequence import Chosen, through
from ..utils.messages import unknown_name
from ..utils.spelling import short_name
from ..utils.spill import Rows
from .files import PromptList
from .rows import held_if_few

PARTS = ("category", "count", "seed")
MOST_CATEGORIES = 2**12
"""So many are kept in mind, for what is said where a category is unknown."""
DIGITS = 4
"""A draw, 64 bits, is compared as so many digits of 16 bits."""
PART = 2**16
"""Rows of an array that are looked at at once."""


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """`"parti?category=Animals&count=100"` as the set's name and what is asked of it.

    Raises:
        RequestError: what follows the question mark is no `KEY=VALUE`, or a key stands twice.
    """
    plain, mark, query = name.partition("?")
    if not mark:
        return name, {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        pairs = []
    if not pairs or len(dict(pairs)) != len(pairs):
        raise RequestError(f"'{name}' cannot be read; expected NAME?KEY=VALUE&KEY=VALUE, as in parti?count=100.")
    return plain, dict(pairs)


def counted_prompts(count: int, name: str) -> str:
    """`"24 prompts of emoji-heldout"`, `"1 prompt of prompts.csv, category Animals"`.

    Args:
        count: how many there are.
        name: of the set or file, with what was asked of it; empty where it has none.
    """
    counted = f"{count:,} prompt{'s' * (count != 1)}"
    try:
        plain, asked = split_name(name)
    except RequestError:  # a file whose name holds a question mark
        plain, asked = name, {}
    category, seed = asked.get("category", ""), asked.get("seed", "0")
    parts = [f"{counted} of {short_name(plain)}" if plain else counted]
    if category:
        categories = category.split(",")
        parts.append(f"{'category' if len(categories) == 1 else 'categories'} {' and '.join(categories)}")
    if seed != "0":
        parts.append(f"sample {seed}")
    return ", ".join(parts)


def whole_number(what: str, value: str | int, least: int) -> int:
    """A number that stood in a name.

    Raises:
        RequestError: it is none, or too small.
    """
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if number < least:
        raise RequestError(f"The {what} of a prompt set is '{value}'; expected a whole number from {least}.")
    return number


def part_of(prompts: PromptSet, category: str | None = None, count: int | None = None, seed: int = 0) -> PromptSet:
    """The prompts of some categories, and of those a sample.

    The sample holds the `count` prompts with the smallest SHA-256 of seed, id and text, in the set's order: it depends
    on no machine, and with one seed a smaller sample is part of every larger one.

    Args:
        prompts: the whole set.
        category: names, commas between them; None for all.
        count: how many; None, or at least as many as there are, for all.
        seed: another seed, another sample.

    Raises:
        RequestError: a category is unknown, or the set has none.
    """
    chosen, said = prompts.prompts, []
    if category is not None:
        wanted = [one.strip() for one in category.split(",")]
        chosen = _those(chosen, _of_categories(prompts, wanted))
        said.append(f"category={','.join(wanted)}")
    if count is not None and count < len(chosen):
        chosen = _those(chosen, _sample(chosen, count, seed))
        said.append(f"count={count}" + (f"&seed={seed}" if seed else ""))
    return PromptList(f"{prompts.name}?{'&'.join(said)}", held_if_few(chosen)) if said else prompts


def _those(prompts: Sequence[Prompt], places: np.ndarray) -> Sequence[Prompt]:
    return [prompts[place] for place in places.tolist()] if isinstance(prompts, list) else Chosen(prompts, places)


def _of_categories(prompts: PromptSet, wanted: Sequence[str]) -> np.ndarray:
    """Where the prompts of these categories stand."""
    known: dict[str, None] = {}
    meant: dict[str, None] = {}
    asked = {name.lower() for name in wanted}
    for one in prompts.prompts:
        if one.category and one.category not in known:
            if len(known) < MOST_CATEGORIES:
                known[one.category] = None
            if one.category.lower() in asked:
                meant[one.category] = None
    if not known:
        raise RequestError(f"The prompt set '{prompts.name}' has no categories.")
    by_name = {name.lower(): name for name in meant}
    for name in wanted:
        if name.lower() not in by_name:
            raise RequestError(unknown_name("category", name, known))
    names = set(by_name.values())
    places = Rows(np.int64)
    for place, one in enumerate(prompts.prompts):
        if one.category in names:
            places.append(place)
    return places.array()


def _draw(seed: int, prompt: Prompt) -> bytes:
    return hashlib.sha256(f"{seed}\0{prompt.id}\0{prompt.text}".encode()).digest()


def _sample(prompts: Sequence[Prompt], count: int, seed: int) -> np.ndarray:
    """Where the `count` prompts with the smallest draws stand, rising; equal draws in the set's order."""
    rows = Rows(np.uint64)
    for one in prompts:
        rows.append(int.from_bytes(_draw(seed, one)[:8], "big"))
    draws = rows.array()
    last, more = _smallest(draws, count)
    tied = np.concatenate([start + np.flatnonzero(part == last) for start, part in _parts(draws)])
    if len(tied) > more:  # nearly always prompts that are there several times
        ranked = zip((_draw(seed, one) for one in through(prompts, tied.tolist())), tied.tolist(), strict=True)
        tied = np.array([place for _, place in heapq.nsmallest(more, ranked)], np.int64)
    chosen = Rows(np.int64)
    for start, part in _parts(draws):
        taken = part < last
        taken[tied[(tied >= start) & (tied < start + len(part))] - start] = True
        chosen.extend(start + np.flatnonzero(taken))
    return chosen.array()


def _smallest(draws: np.ndarray, count: int) -> tuple[np.uint64, int]:
    """The `count`-th smallest draw, digit by digit, and how many of the `count` smallest are equal to it."""
    known, left = 0, count
    for digit in range(DIGITS):
        shift = np.uint64(16 * (DIGITS - 1 - digit))
        tally = np.zeros(2**16, np.int64)
        for _, part in _parts(draws):
            found = part >> shift
            alike = found[found >> np.uint64(16) == known] if digit else found
            tally += np.bincount((alike & np.uint64(2**16 - 1)).astype(np.int64), minlength=2**16)
        passed = np.cumsum(tally)
        place = int(np.searchsorted(passed, left))
        left -= int(passed[place] - tally[place])
        known = known << 16 | place
    return np.uint64(known), left


def _parts(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(rows), PART):
        yield start, rows[start : start + PART]
