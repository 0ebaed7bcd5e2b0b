"""Prompts from a file in any format that prompt sets are published in, by its ending.

| ending | content |
|---|---|
| `.txt` and anything else | one prompt a line; blank lines and lines that start with `#` are passed over |
| `.tsv`, `.csv` | a header and a row a prompt |
| `.json` | a list of texts or of objects; an object of such lists, by category; or COCO's captions |
| `.jsonl` | an object or a text a line |
| `.parquet` | a column a field (needs pyarrow) |

The columns or keys are found by name, whatever their case: the prompt by `PROMPTS`, an id by `IDS`, a category by
`CATEGORIES`, each the first that is there.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import PluginError, RequestError, first_line
from .roles import Prompt

PROMPTS = ("prompt", "prompts", "caption", "text", "captions", "sentence")
IDS = ("id", "prompt_id", "image_id", "uid", "index")
CATEGORIES = ("category", "tag", "style", "class", "type")
SHOWN = 8
"""Most column names that an error lists."""


@dataclass(frozen=True)
class PromptList:
    """A prompt set that is simply a list."""

    name: str
    prompts: Sequence[Prompt]


def read_prompt_file(path: Path, name: str | None = None) -> PromptList:
    """Read prompts, in the file's order.

    Args:
        path: the file; its ending says the format.
        name: what the set is called; the file's stem where None.

    Raises:
        RequestError: the file is missing, is no text, is not of its ending's format, or holds no prompt.
        PluginError: it is Parquet and pyarrow is missing.
    """
    reader = _READERS.get(path.suffix.lower(), _read_lines)
    try:
        prompts = [one for one in reader(path) if one.text.strip()]
    except OSError as error:
        raise RequestError(f"Cannot read the prompt file {path}: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise RequestError(f"The prompt file {path} is no UTF-8 text; expected one prompt a line.") from None
    if any("\0" in one.text for one in prompts):
        raise RequestError(f"The prompt file {path} is binary; expected one prompt a line.")
    if not prompts:
        raise RequestError(f"The prompt file {path} holds no prompt; expected one prompt a line.")
    return PromptList(name or path.stem, prompts)


def _read_lines(path: Path) -> Iterator[Prompt]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if text and not text.startswith("#"):
                yield Prompt(text, str(number))


def _find(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    by_name = {name.strip().lower(): name for name in names}
    return next((by_name[one] for one in wanted if one in by_name), None)


def _prompts_of(rows: Iterable[Mapping[str, Any]], path: Path, category: str = "") -> Iterator[Prompt]:
    """Rows with named fields as prompts."""
    for number, row in enumerate(rows, 1):
        names = [name for name in row if isinstance(name, str)]
        text = _find(names, PROMPTS)
        if text is None:
            there = ", ".join(names[:SHOWN]) or "none"
            raise RequestError(
                f"The prompt file {path} has no prompts: row {number} has the fields {there}; expected one of "
                f"{', '.join(PROMPTS)}."
            )
        key, kind = _find(names, IDS), _find(names, CATEGORIES)
        value = row[text]
        if not isinstance(value, str):
            raise RequestError(f"The prompt file {path}, row {number}: '{text}' is {value!r}; expected a text.")
        identity = row[key] if key else None
        group = row[kind] if kind else None
        yield Prompt(
            value.strip(),
            str(number if identity is None else identity),
            category or (group.strip() if isinstance(group, str) else ""),
        )


def _read_table(separator: str, quoting: Any) -> Callable[[Path], Iterator[Prompt]]:
    def read(path: Path) -> Iterator[Prompt]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            try:
                yield from _prompts_of(csv.DictReader(file, delimiter=separator, quoting=quoting), path)
            except csv.Error as error:
                raise RequestError(f"The prompt file {path} is no table: {error}.") from error

    return read


def _objects(rows: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    """Texts as objects with a prompt; objects as they are; anything else as an object without a field."""
    for row in rows:
        yield {"prompt": row} if isinstance(row, str) else row if isinstance(row, dict) else {}


def _parsed(text: str, where: str) -> Any:
    """JSON content, whatever is wrong with it said as a sentence: syntax, numbers of thousands of digits, depth."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The prompt file {where} is no JSON that can be read: {first_line(error)}.") from error


def _read_json(path: Path) -> Iterator[Prompt]:
    content = _parsed(path.read_text(encoding="utf-8-sig"), str(path))
    if isinstance(content, list):
        yield from _prompts_of(_objects(content), path)
    elif isinstance(content, dict) and isinstance(content.get("annotations"), list):
        yield from _coco_captions(content["annotations"], path)
    elif isinstance(content, dict) and content and all(isinstance(one, list) for one in content.values()):
        for category, rows in content.items():
            for one in _prompts_of(_objects(rows), path, category):
                yield Prompt(one.text, f"{category}-{one.id}", category)
    else:
        raise RequestError(
            f"The prompt file {path} is no list of prompts; expected a JSON list of texts or of objects with one of "
            f"{', '.join(PROMPTS)}, an object of such lists by category, or COCO's captions."
        )


def _coco_captions(annotations: Sequence[Any], path: Path) -> Iterator[Prompt]:
    """One caption an image, the one with the lowest id, in the order of the images' ids."""
    first: dict[int, Mapping[str, Any]] = {}
    for one in annotations:
        numbered = isinstance(one, dict) and all(isinstance(one.get(key), int) for key in ("image_id", "id"))
        if not numbered or not isinstance(one.get("caption"), str):
            raise RequestError(
                f"The prompt file {path} is no file of COCO captions: an annotation lacks a number image_id, a number "
                "id or a text caption."
            )
        known = first.get(one["image_id"])
        if known is None or one["id"] < known["id"]:
            first[one["image_id"]] = one
    for image in sorted(first):
        yield Prompt(" ".join(first[image]["caption"].split()), str(image))


def _read_json_lines(path: Path) -> Iterator[Prompt]:
    def rows() -> Iterator[Any]:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _parsed(line, f"{path}, line {number},")

    yield from _prompts_of(_objects(rows()), path)


def _read_parquet(path: Path) -> Iterator[Prompt]:
    if importlib.util.find_spec("pyarrow") is None:
        raise PluginError(
            f"Reading {path} needs pyarrow, which is not installed. Run: pip install 'dipp-toolkit[parquet]'"
        )
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        wanted = [found for found in (_find(names, group) for group in (PROMPTS, IDS, CATEGORIES)) if found]
        if _find(names, PROMPTS) is None:
            wanted = names[:SHOWN]
        number = 0
        for batch in file.iter_batches(columns=wanted):
            for one in _prompts_of(batch.to_pylist(), path):
                number += 1
                yield one if _find(names, IDS) else Prompt(one.text, str(number), one.category)
    except pyarrow.ArrowException as error:
        raise RequestError(f"The prompt file {path} is no Parquet file: {first_line(error)}.") from error


_READERS: dict[str, Callable[[Path], Iterator[Prompt]]] = {
    # Tables with tabs are published without quoting, so a quotation mark is part of the prompt.
    ".tsv": _read_table("\t", csv.QUOTE_NONE),
    ".csv": _read_table(",", csv.QUOTE_MINIMAL),
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}
