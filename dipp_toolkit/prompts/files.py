"""Prompts from a file in any format that prompt sets are published in, by its ending, or from a `datasets.Dataset`.

| ending | content |
|---|---|
| `.txt` and anything else | one prompt a line; blank lines and lines that start with `#` are passed over |
| `.tsv`, `.csv` | a header and a row a prompt; or rows of an image's name and its prompt |
| `.json` | a list of texts or of objects; an object of such lists, by category, or of texts, by image |
| | COCO's captions; what `dipp generate --json` and `dipp score --json` print |
| `.jsonl` | an object or a text a line, which ends at a line feed alone |
| `.parquet` | a column a field |

The columns or keys are found by name, whatever their case: the prompt by `PROMPTS`, an id by `IDS`, a category by
`CATEGORIES`, an image's file by `FILES`, each the first that is there.

Every source gives rows, every row is checked, and `held_or_mapped` keeps them. The readers are ours and not those of
`datasets`, which take a quotation mark in a `.tsv` as quoting, guess types (an id `007` becomes 7), know neither COCO's
captions nor lists by category, name no row in their errors, and read a Parquet file that says it is far larger than it
is.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from io import TextIOWrapper
from itertools import chain, zip_longest
from pathlib import Path
from typing import IO, Any

from ..errors import RequestError, first_line
from ..protocols import Prompt
from ..utils.messages import quoted, shown
from .dataset import BATCH, PromptList, batched_rows, checked, held_or_mapped

PROMPTS = ("prompt", "prompts", "caption", "text", "captions", "sentence")
IDS = ("id", "prompt_id", "image_id", "uid", "index")
CATEGORIES = ("category", "tag", "style", "class", "type")
FILES = ("file_name", "file", "filename", "image", "path", "name")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".jp2")
"""How the first cell of a table without a header ends."""
SHOWN = 8
"""Most column names that an error lists."""
BUFFER = 2**16
"""Bytes of a Parquet file that are read at a time."""
LARGE, MOST_RATIO = 2**28, 1000
"""Bytes of a row group's column, and how many times its stored size, that a Parquet file may say it has."""


def read_prompt_file(path: Path, name: str | None = None, *, of_images: bool = False) -> PromptList:
    """Read prompts, in the file's order.

    Args:
        path: the file; its ending says the format.
        name: what the set is called; the file's name where None.
        of_images: keep empty prompts of named images, which rewards that read none can score.

    Raises:
        RequestError: the file is missing, is not text, does not have its ending's format, or has no prompts.
    """
    read = _FORMATS.get(path.suffix.lower(), _plain)
    try:
        with _opened(path) as file:
            prompts = held_or_mapped(checked(read(file, path), f"prompt file {path}", of_images))
    except OSError as error:
        raise RequestError(f"Cannot read the prompt file {path}: {error.strerror or first_line(error)}.") from error
    except UnicodeDecodeError:
        raise RequestError(f"The prompt file {path} is not UTF-8 text; expected one prompt a line.") from None
    if not prompts:
        raise RequestError(f"The prompt file {path} holds no prompts; expected one prompt a line.")
    return PromptList(name or path.name, prompts)


def prompts_of_dataset(dataset: Any, name: str) -> PromptList:
    """The prompts of a `datasets.Dataset`, or of one that streams, by the same names of columns as a file's.

    Args:
        dataset: of one split.
        name: what the set is called.

    Raises:
        RequestError: it has no column of prompts, a prompt is not a text, or it has none.
    """
    source, names = f"dataset {name}", list(dataset.column_names or ())
    wanted = _wanted(names)
    tables = dataset.select_columns(wanted).with_format("arrow").iter(BATCH)
    rows = (_prompt_of(row, number, source) for number, row in enumerate(batched_rows(tables), 1))
    prompts = held_or_mapped(checked(rows, source))
    if not prompts:
        raise RequestError(f"The {source} holds no prompts.")
    return PromptList(name, prompts)


def _opened(path: Path) -> IO[bytes]:
    """The file, or a copy of what comes through a pipe, in which a format may not be able to go back.

    Raises:
        RequestError: it is a device.
        OSError: it is missing or cannot be read.
    """
    file: IO[bytes] = path.open("rb")
    kind = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(kind):
        return file
    with file:
        if stat.S_ISCHR(kind) and not file.isatty():
            raise RequestError(f"The prompt file {path} is a device; expected a file of prompts.")
        copy = tempfile.TemporaryFile()  # noqa: SIM115 -- the caller closes it
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        return copy


def _lines(file: IO[bytes]) -> TextIOWrapper:
    return TextIOWrapper(file, "utf-8-sig", newline="")


def _plain(file: IO[bytes], path: Path) -> Iterator[Prompt]:
    for number, line in enumerate(_lines(file), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            yield Prompt(text, str(number))


@lru_cache
def _columns(names: tuple[str, ...]) -> tuple[str | None, str | None, str | None, str | None]:
    """Those of the prompt, the id, the category and the image's file."""
    by_name = {name.strip().lower(): name for name in names}
    text, key, kind, file = (
        next((by_name[name] for name in accepted if name in by_name), None)
        for accepted in (PROMPTS, IDS, CATEGORIES, FILES)
    )
    return text, key, kind, file


def _wanted(names: Sequence[str]) -> list[str]:
    """The columns to read; where none holds prompts, those that the error will list."""
    columns = _columns(tuple(names))
    return list(names[:SHOWN]) if columns[0] is None else [column for column in columns if column]


def _prompt_of(row: Mapping[Any, Any], number: int, source: str, category: str = "") -> Prompt:
    """A row with named fields as a prompt."""
    names = tuple(name for name in row if isinstance(name, str))
    text, key, kind, file = _columns(names)
    if text is None:
        fields = shown(", ".join(names[:SHOWN]) or "none")
        raise RequestError(
            f"The {source} has no prompts: row {number} has the fields {fields}; expected one of {', '.join(PROMPTS)}."
        )
    value = row[text]
    if not isinstance(value, str):
        raise RequestError(f"The {source}, row {number}: '{text}' is {quoted(value)}; expected a text.")
    identity, group, image = (row[name] if name else None for name in (key, kind, file))
    return Prompt(
        value.strip(),
        str(number if identity is None else identity),
        category or (group.strip() if isinstance(group, str) else ""),
        image.strip() if isinstance(image, str) else "",
    )


def _table(separator: str, quoting: Any) -> Callable[[IO[bytes], Path], Iterator[Prompt]]:
    def read(file: IO[bytes], path: Path) -> Iterator[Prompt]:
        # Blank lines come before no header and are no rows.
        cells = csv.reader(_lines(file), delimiter=separator, quoting=quoting, strict=True)
        table: Iterator[list[str]] = filter(None, cells)
        try:
            names = next(table, [])
            if len(names) == 2 and names[0].strip().lower().endswith(PICTURES):
                table, names = chain([names], table), [FILES[0], PROMPTS[0]]
            for number, row in enumerate(table, 1):
                fields = dict(zip_longest(names, row[: len(names)]))
                yield _prompt_of(fields, number, f"prompt file {path}")
        except csv.Error as error:
            raise RequestError(f"The prompt file {path} is not a table: {error}.") from error

    return read


def _object(row: Any) -> Mapping[Any, Any]:
    """A text as an object with a prompt; an object as it is; anything else as an object without a field."""
    return {"prompt": row} if isinstance(row, str) else row if isinstance(row, dict) else {}


def _parsed(text: str, where: str) -> Any:
    """JSON content, whatever is wrong with it said as a sentence: syntax, numbers of thousands of digits, depth."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The prompt file {where} is not valid JSON: {first_line(error)}.") from error


def _json_lines(file: IO[bytes], path: Path) -> Iterator[Prompt]:
    row = 0
    for number, line in enumerate(file, 1):  # as bytes, in which a carriage return ends no line
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        if text.strip():
            row += 1
            yield _prompt_of(_object(_parsed(text, f"{path}, line {number},")), row, f"prompt file {path}")


def _json(file: IO[bytes], path: Path) -> Iterator[Prompt]:
    content, source = _parsed(file.read().decode("utf-8-sig"), str(path)), f"prompt file {path}"
    if isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" not in content:
        content = _made_images(content["images"], content.get("prompts"))
    elif isinstance(content, dict) and content and all(isinstance(value, str) for value in content.values()):
        alone = _columns(tuple(content))[0] is not None
        content = [content] if alone else [{FILES[0]: name, PROMPTS[0]: text} for name, text in content.items()]
    if isinstance(content, list):
        for number, row in enumerate(content, 1):
            yield _prompt_of(_object(row), number, source)
    elif isinstance(content, dict) and isinstance(content.get("annotations"), list):
        yield from _coco_captions(content["annotations"], source)
    elif isinstance(content, dict) and content and all(isinstance(rows, list) for rows in content.values()):
        for category, rows in content.items():
            for number, row in enumerate(rows, 1):
                prompt = _prompt_of(_object(row), number, source, category)
                yield Prompt(prompt.text, f"{category}-{prompt.id}", category)
    else:
        raise RequestError(
            f"The {source} is not a list of prompts; expected a JSON list of texts or of objects with one of "
            f"{', '.join(PROMPTS)}, an object of such lists by category or of texts by image, or COCO's captions."
        )


def _made_images(images: list[Any], prompts: Any) -> list[Any]:
    """What `dipp generate --json` prints, images beside their prompts, or `dipp score --json`, an object an image."""
    if not isinstance(prompts, list) or len(prompts) != len(images):
        return images
    return [{FILES[0]: name, PROMPTS[0]: text} for name, text in zip(images, prompts, strict=True)]


def _coco_captions(annotations: Sequence[Any], source: str) -> Iterator[Prompt]:
    """One caption an image, the one with the lowest id, in the order of the images' ids."""
    first: dict[int, Mapping[str, Any]] = {}
    for caption in annotations:
        numbered = isinstance(caption, dict) and all(isinstance(caption.get(key), int) for key in ("image_id", "id"))
        if not numbered or not isinstance(caption.get("caption"), str):
            raise RequestError(
                f"The {source} is not a file of COCO captions: an annotation lacks a number image_id, a number id or "
                "a text caption."
            )
        earlier = first.get(caption["image_id"])
        if earlier is None or caption["id"] < earlier["id"]:
            first[caption["image_id"]] = caption
    for image in sorted(first):
        yield Prompt(" ".join(first[image]["caption"].split()), str(image))


def _parquet(file: IO[bytes], path: Path) -> Iterator[Prompt]:
    import pyarrow
    from pyarrow import parquet

    try:
        columns = parquet.ParquetFile(file, buffer_size=BUFFER)
        wanted = _wanted(columns.schema_arrow.names)
        _check_sizes(columns.metadata, wanted, path)
        # A text that stands in many rows is held once.
        columns = parquet.ParquetFile(file, buffer_size=BUFFER, metadata=columns.metadata, read_dictionary=wanted)
        rows = batched_rows(columns.iter_batches(BATCH, columns=wanted, use_threads=False))
        for number, row in enumerate(rows, 1):
            yield _prompt_of(row, number, f"prompt file {path}")
    except (pyarrow.ArrowException, MemoryError) as error:
        raise RequestError(f"The prompt file {path} is not a readable Parquet file: {first_line(error)}.") from error


def _check_sizes(metadata: Any, wanted: Iterable[str], path: Path) -> None:
    """Refuse a file that says it is far larger than what is in it.

    Raises:
        RequestError: columns that are read say to become large, and far larger than they are.
    """
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            size, stored = column.total_uncompressed_size, column.total_compressed_size
            if column.path_in_schema.split(".")[0] in wanted and size > max(LARGE, MOST_RATIO * stored):
                raise RequestError(
                    f"The prompt file {path} says that {stored:,} bytes of it become {size:,}, which is not plausible "
                    "for prompts; expected texts."
                )


_FORMATS: dict[str, Callable[[IO[bytes], Path], Iterator[Prompt]]] = {
    # Tables with tabs are published without quoting, so a quotation mark is part of the prompt.
    ".tsv": _table("\t", csv.QUOTE_NONE),
    ".csv": _table(",", csv.QUOTE_MINIMAL),
    ".json": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
