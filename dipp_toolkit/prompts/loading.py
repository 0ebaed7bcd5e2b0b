"""From names to prompt sets: what scripts and the command line use alike."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PluginError, RequestError
from ..protocols import Prompt, PromptSet
from ..registry import get_registry
from ..utils.assignments import PROMPT_FILES
from ..utils.exception_text import loading
from ..utils.imports import is_python_name, make_from_python
from ..utils.messages import unknown_name
from ..utils.paths import is_there, looks_like_path, user_path
from .dataset import PromptList, PromptTable
from .files import prompts_of_dataset, read_prompt_file
from .subsets import PARTS, part_of, split_name, whole_number

if TYPE_CHECKING:
    from datasets import Dataset


def load_prompts(
    name_or_path: str | Path | Dataset | Sequence[str | Prompt] | PromptSet,
    *,
    category: str | None = None,
    count: int | None = None,
    seed: int = 0,
    **options: Any,
) -> PromptList:
    """A prompt set by registered name, from a file in any published format, `file.py:Name`, or an object of Python.

    `Name` is a `PromptSet`, a list of texts, a dataset, or a class or function that makes one.

    Everything may also stand in the name: `"parti?category=Animals&count=100&seed=1"`. The set counts by `len` and
    iterates over its prompts:

        >>> prompts = load_prompts(["fox on blue", "cake on yellow"])
        >>> len(prompts), [prompt.text for prompt in prompts]
        (2, ['fox on blue', 'cake on yellow'])

    Args:
        name_or_path: a registered name, a file's path, a list of texts, a prompt set, or a `datasets.Dataset` with a
            column of prompts, found by its name as in a file.
        category: only the prompts of these categories, commas between them.
        count: only a seeded sample of so many.
        seed: of the sample.
        options: of the prompt set's factory, such as `path`, a local copy of a published one.

    Raises:
        RequestError: the name is unknown, the file is missing, empty or does not have its ending's format, the dataset
            has no column of prompts, or the part does not exist.
    """
    whole = _whole_set(name_or_path, category, count, seed, options)
    return whole if isinstance(whole, PromptList) else PromptList(whole.name, whole.prompts)


def _whole_set(
    name_or_path: Any, category: str | None, count: int | None, seed: int, options: dict[str, Any]
) -> PromptSet:
    if isinstance(name_or_path, Path):
        return part_of(read_prompt_file(name_or_path), category, count, seed)
    if not isinstance(name_or_path, str):
        return part_of(_of_object(name_or_path, ""), category, count, seed)
    # A file whose name holds a question mark is still found by it.
    is_file = is_there(name_or_path) and user_path(name_or_path).is_file()
    name, query = (name_or_path, {}) if is_file else split_name(name_or_path)
    category = query.pop("category", category)
    size = query.pop("count", count)
    count = None if size is None else whole_number("count", size, 1)
    seed = whole_number("seed", query.pop("seed", seed), 0)
    options = {**options, **query}
    registered = get_registry().entries["prompts"]
    if name in registered:
        with loading("prompt set", name):
            made: Any = registered[name].build(**options)
            return part_of(made if isinstance(made, PromptSet) else _dataset(made, name), category, count, seed)
    if is_python_name(name):
        with loading("prompt set", name):
            return part_of(_own_prompts(name, options), category, count, seed)
    if looks_like_path(name) or Path(name).suffix.lower() in PROMPT_FILES:
        if options:
            raise RequestError(unknown_name("part of a prompt file", next(iter(options)), PARTS))
        return part_of(read_prompt_file(user_path(name)), category, count, seed)
    raise get_registry().unknown(name, "prompts")


def _is_dataset(made: Any) -> bool:
    library = sys.modules.get("datasets")  # it is loaded wherever one of its objects is
    return library is not None and isinstance(made, library.Dataset | library.IterableDataset)


def _dataset(made: Any, name: str) -> PromptSet:
    if not _is_dataset(made):
        raise PluginError(
            f"The prompt set '{name}' is a {type(made).__name__}; expected a prompt set or a datasets.Dataset of one "
            "split."
        )
    return prompts_of_dataset(made, name)


def _own_prompts(name: str, options: dict[str, Any]) -> PromptSet:
    return _of_object(make_from_python(name, "prompt set", options), name)


def _of_object(made: Any, name: str) -> PromptSet:
    """A list of texts, a dataset, or a prompt set, as a prompt set of this name where it has none of its own.

    Raises:
        PluginError: it is something else.
    """
    if _is_dataset(made):
        return prompts_of_dataset(made, name.rpartition(":")[2] or "from Python")
    if isinstance(made, PromptList | PromptTable):  # looked at as it was read
        return made if isinstance(made, PromptList) else PromptList(name, made)
    rows: Any = getattr(made, "prompts", made)
    if isinstance(rows, Iterable) and not isinstance(rows, str | Mapping | Sequence):
        rows = list(rows)  # such as a column of a table
    prompts = [
        _numbered(row, number)
        for number, row in enumerate(
            () if isinstance(rows, str | Mapping) or not isinstance(rows, Sequence) else rows, 1
        )
    ]
    if not prompts or not all(isinstance(prompt.text, str) and prompt.text.strip() for prompt in prompts):
        raise PluginError(
            f"The prompt set{f' {name!r}' if name else ''} is a {type(made).__name__}; expected a list of texts, none "
            "of them empty, a datasets.Dataset, or an object with a name and such a list as its prompts."
        )
    return PromptList(str(getattr(made, "name", name.rpartition(":")[2])), prompts)


def _numbered(row: Any, number: int) -> Prompt:
    return row if isinstance(row, Prompt) else Prompt(row, str(number))
