"""Parts of a prompt set: by category, and a seeded sample of a size."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from urllib.parse import parse_qsl

import numpy as np

from ..errors import RequestError
from ..protocols import Prompt, PromptSet
from ..utils.messages import short_name, unknown_name
from .dataset import PromptList, chosen

PARTS = ("category", "count", "seed")
MOST_CATEGORIES = 2**12
"""So many are remembered for the message about an unknown one."""


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """`"parti?category=Animals&count=100"` as the set's name and its options.

    Raises:
        RequestError: what follows the question mark is not `KEY=VALUE`, or a key stands twice.
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
        name: of the set or file, with its options; empty where it has none.
    """
    counted = f"{count:,} prompt{'s' * (count != 1)}"
    try:
        plain, options = split_name(name)
    except RequestError:  # a file whose name holds a question mark
        plain, options = name, {}
    category, seed = options.get("category", ""), options.get("seed", "0")
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
        RequestError: it is not a whole number, or too small.
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
    part, query = prompts.prompts, []
    if category is not None:
        names = [name.strip() for name in category.split(",")]
        part = chosen(part, _of_categories(prompts, names))
        query.append(f"category={','.join(names)}")
    if count is not None and count < len(part):
        part = chosen(part, _sample(part, count, seed))
        query.append(f"count={count}" + (f"&seed={seed}" if seed else ""))
    return PromptList(f"{prompts.name}?{'&'.join(query)}", part) if query else prompts


def _of_categories(prompts: PromptSet, names: Sequence[str]) -> np.ndarray:
    """Where the prompts of these categories stand."""
    asked, categories = {name.lower() for name in names}, dict[str, None]()
    for prompt in prompts.prompts:
        if prompt.category and (len(categories) < MOST_CATEGORIES or prompt.category.lower() in asked):
            categories[prompt.category] = None
    if not categories:
        raise RequestError(f"The prompt set '{prompts.name}' has no categories.")
    by_name = {category.lower(): category for category in categories}
    for name in names:
        if name.lower() not in by_name:
            raise RequestError(unknown_name("category", name, categories))
    wanted = {by_name[name.lower()] for name in names}
    isin = np.fromiter((prompt.category in wanted for prompt in prompts.prompts), bool, len(prompts.prompts))
    return np.flatnonzero(isin)


def _draw(seed: int, prompt: Prompt) -> int:
    """The first 64 bits of the SHA-256."""
    digest = hashlib.sha256(f"{seed}\0{prompt.id}\0{prompt.text}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _sample(prompts: Sequence[Prompt], count: int, seed: int) -> np.ndarray:
    """Where the `count` prompts with the smallest draws stand, rising; equal draws in the set's order."""
    draws = np.fromiter((_draw(seed, prompt) for prompt in prompts), np.uint64, len(prompts))
    return np.sort(np.argsort(draws, kind="stable")[:count])
