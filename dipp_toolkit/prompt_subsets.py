"""Parts of a prompt set: by category, and a seeded sample of a size."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from .errors import RequestError
from .naming import unknown_name
from .prompt_files import PromptList
from .roles import Prompt, PromptSet

PARTS = ("category", "count", "seed")


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
    chosen = list(prompts.prompts)
    said = []
    if category is not None:
        wanted = [one.strip() for one in category.split(",")]
        chosen = _of_categories(prompts, chosen, wanted)
        said.append(f"category={','.join(wanted)}")
    if count is not None and count < len(chosen):
        ranked = sorted(range(len(chosen)), key=lambda index: _draw(seed, index, chosen[index]))
        chosen = [chosen[index] for index in sorted(ranked[:count])]
        said.append(f"count={count}" + (f"&seed={seed}" if seed else ""))
    return PromptList(f"{prompts.name}?{'&'.join(said)}", chosen) if said else prompts


def _draw(seed: int, index: int, prompt: Prompt) -> tuple[bytes, int]:
    return hashlib.sha256(f"{seed}\0{prompt.id}\0{prompt.text}".encode()).digest(), index


def _of_categories(prompts: PromptSet, chosen: Sequence[Prompt], wanted: Sequence[str]) -> list[Prompt]:
    known = dict.fromkeys(one.category for one in chosen if one.category)
    if not known:
        raise RequestError(f"The prompt set '{prompts.name}' has no categories.")
    by_name: Mapping[str, str] = {name.lower(): name for name in known}
    for name in wanted:
        if name.lower() not in by_name:
            raise RequestError(unknown_name("category", name, known))
    names = {by_name[name.lower()] for name in wanted}
    return [one for one in chosen if one.category in names]
