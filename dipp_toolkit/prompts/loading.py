"""From names to prompt sets: what scripts and the command line use alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from ..errors import PluginError, RequestError
from ..protocols import Prompt, PromptSet
from ..registry import get_registry
from ..utils.assignments import PROMPT_FILES
from ..utils.exception_text import loading
from ..utils.imports import is_python_name, make_from_python
from ..utils.messages import unknown_name
from ..utils.paths import is_there, looks_like_path, user_path
from .files import PromptList, read_prompt_file
from .subsets import PARTS, part_of, split_name, whole_number


def load_prompts(
    name_or_path: str, *, category: str | None = None, count: int | None = None, seed: int = 0, **options: Any
) -> PromptSet:
    """A prompt set by registered name, from a file in any published format, or `file.py:Name`.

    `Name` is a `PromptSet`, a list of texts, or a class or function that makes one.

    Everything may also stand in the name: `"parti?category=Animals&count=100&seed=1"`.

    Args:
        name_or_path: a registered name, or a file's path.
        category: only the prompts of these categories, commas between them.
        count: only a seeded sample of so many.
        seed: of the sample.
        options: of the prompt set's factory, such as `path`, a local copy of a published one.

    Raises:
        RequestError: the name is unknown, the file is missing, empty or not of its ending's format, or the part that is
            asked for is none of it.
    """
    # A file whose name holds a question mark is still found by it.
    is_file = is_there(name_or_path) and user_path(name_or_path).is_file()
    name, asked = (name_or_path, {}) if is_file else split_name(name_or_path)
    category = asked.pop("category", category)
    wanted = asked.pop("count", count)
    count = None if wanted is None else whole_number("count", wanted, 1)
    seed = whole_number("seed", asked.pop("seed", seed), 0)
    options = {**options, **asked}
    known = get_registry().entries["prompts"]
    if name in known:
        with loading("prompt set", name):
            return part_of(cast(PromptSet, known[name].build(**options)), category, count, seed)
    if is_python_name(name):
        with loading("prompt set", name):
            return part_of(_own_prompts(name, options), category, count, seed)
    if looks_like_path(name) or Path(name).suffix.lower() in PROMPT_FILES:
        if options:
            raise RequestError(unknown_name("part of a prompt file", next(iter(options)), PARTS))
        return part_of(read_prompt_file(user_path(name)), category, count, seed)
    raise get_registry().unknown(name, "prompts")


def _own_prompts(name: str, options: dict[str, Any]) -> PromptSet:
    made = make_from_python(name, "prompt set", options)
    rows: Any = made if isinstance(made, list | tuple) else getattr(made, "prompts", None)
    prompts = [_numbered(row, number) for number, row in enumerate(rows if isinstance(rows, Sequence) else (), 1)]
    if not prompts or not all(isinstance(one.text, str) and one.text.strip() for one in prompts):
        raise PluginError(
            f"The prompt set '{name}' is a {type(made).__name__}; expected a list of texts, none of them empty, or an "
            "object with a name and such a list as its prompts."
        )
    return PromptList(str(getattr(made, "name", name.rpartition(":")[2])), prompts)


def _numbered(row: Any, number: int) -> Prompt:
    return row if isinstance(row, Prompt) else Prompt(row, str(number))
