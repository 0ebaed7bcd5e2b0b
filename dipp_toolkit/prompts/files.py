"""Prompts from a file in any format that prompt sets are published in, by its ending.

| ending | content |
|---|---|
| `.txt` and anything else | one prompt a line; blank lines and lines that start with `#` are passed over |
| `.tsv`, `.csv` | a header and a row a prompt; or rows of an image's name and its prompt |
| `.json` | a list of texts or of objects; an object of such lists, by category, or of texts, by image |
| | COCO's captions; what `dipp generate --json` and `dipp score --json` print |
| `.jsonl` | an object or a text a line, which ends at a line feed alone |
| `.parquet` | a column a field (needs pyarrow) |

The columns or keys are found by name, whatever their case: the prompt by `PROMPTS`, an id by `IDS`, a category by
`CATEGORIES`, an image's file by `FILES`, each the first that is there.

A file is read through once, and every row checked. Few prompts are then held in memory; of many, all but those of a
`.json`, only an index is made (`prompt_rows`), and each is read from the file when it is asked for.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import IO, Any

from ..errors import RequestError, first_line
from ..protocols import Prompt
from ..utils.line_reader import Lines
from ..utils.messages import quoted, shown
from ..utils.packages import missing_of, not_installed
from ..utils.spill import scratch_file
from .rows import Place, Reader, checked, held_or_indexed

PROMPTS = ("prompt", "prompts", "caption", "text", "captions", "sentence")
IDS = ("id", "prompt_id", "image_id", "uid", "index")
CATEGORIES = ("category", "tag", "style", "class", "type")
FILES = ("file_name", "file", "filename", "image", "path", "name")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".jp2")
"""How the first cell of a table without a header ends."""
SHOWN = 8
"""Most column names that an error lists."""
BATCH, BUFFER = 2**12, 2**16
"""Rows and bytes of a Parquet file that are in memory at a time."""
DECODED = 64
"""Of these rows, those whose texts are."""
LARGE, MOST_RATIO = 2**28, 1000
"""Bytes of a row group's column, and how many times its stored size, that a Parquet file may say it has."""


@dataclass(frozen=True)
class PromptList:
    """A prompt set that is simply a list, or any other sequence."""

    name: str
    prompts: Sequence[Prompt]


def read_prompt_file(path: Path, name: str | None = None, *, of_images: bool = False) -> PromptList:
    """Read prompts, in the file's order.

    Args:
        path: the file; its ending says the format.
        name: what the set is called; the file's name where None.
        of_images: keep empty prompts of named images, which rewards that read none can score.

    Raises:
        RequestError: the file is missing, is no text, is not of its ending's format, or holds no prompt.
        PluginError: it is Parquet and pyarrow is missing.
    """
    ending = path.suffix.lower()
    try:
        if ending == ".json":
            with _opened(path) as whole:
                found = checked((((), one) for one in _read_json(whole, path)), path, of_images)
                prompts: Sequence[Prompt] = [one for _, one in found]
        elif ending == ".parquet":
            file = scratch_file()
            with _opened(path) as whole:
                rows = _read_parquet(whole, path)
                prompts = held_or_indexed(path, file, checked(_spilled(rows, file), path, of_images), _spilled_rows)
        else:
            prompts = _in_text(path, _FORMATS.get(ending, _plain), of_images)
    except OSError as error:
        raise RequestError(f"Cannot read the prompt file {path}: {error.strerror or first_line(error)}.") from error
    except UnicodeDecodeError:
        raise RequestError(f"The prompt file {path} is no UTF-8 text; expected one prompt a line.") from None
    if not prompts:
        raise RequestError(f"The prompt file {path} holds no prompt; expected one prompt a line.")
    return PromptList(name or path.name, prompts)


def _opened(path: Path) -> IO[bytes]:
    """The file, or a copy of what comes through a pipe, which can be read only once.

    Raises:
        RequestError: it is a device.
        OSError: it is missing or cannot be read.
    """
    file: IO[bytes] = path.open("rb")
    kind = os.fstat(file.fileno()).st_mode
    if stat.S_ISCHR(kind) and not file.isatty():
        raise RequestError(f"The prompt file {path} is a device; expected a file of prompts.")
    if stat.S_ISREG(kind):
        return file
    with file:
        copy = scratch_file()
        shutil.copyfileobj(file, copy)
        copy.flush()
        copy.seek(0)
        return copy


def _in_text(path: Path, begin: Callable[[Lines, Path], Reader], of_images: bool) -> Sequence[Prompt]:
    file = _opened(path)
    lines = Lines(file.fileno())
    reader = begin(lines, path)
    return held_or_indexed(path, file, checked(reader(lines, 1), path, of_images), reader)


def _plain(lines: Lines, path: Path) -> Reader:
    def rows(lines: Lines, first: int) -> Iterator[tuple[Place, Prompt]]:
        for number in count(first):
            lines.mark()
            line = next(lines, None)
            if line is None:
                return
            text = line.strip()
            if text and not text.startswith("#"):
                yield (lines.start, number, lines.check), Prompt(text, str(number))

    return rows


@lru_cache
def _columns(names: tuple[str, ...]) -> tuple[str | None, str | None, str | None, str | None]:
    """Those of the prompt, the id, the category and the image's file."""
    by_name = {name.strip().lower(): name for name in names}
    text, key, kind, file = (
        next((by_name[one] for one in wanted if one in by_name), None) for wanted in (PROMPTS, IDS, CATEGORIES, FILES)
    )
    return text, key, kind, file


def _prompt_of(row: Mapping[Any, Any], number: int, path: Path, category: str = "") -> Prompt:
    """A row with named fields as a prompt."""
    names = tuple(name for name in row if isinstance(name, str))
    text, key, kind, file = _columns(names)
    if text is None:
        there = shown(", ".join(names[:SHOWN]) or "none")
        raise RequestError(
            f"The prompt file {path} has no prompts: row {number} has the fields {there}; expected one of "
            f"{', '.join(PROMPTS)}."
        )
    value = row[text]
    if not isinstance(value, str):
        raise RequestError(f"The prompt file {path}, row {number}: '{text}' is {quoted(value)}; expected a text.")
    identity, group, image = (row[name] if name else None for name in (key, kind, file))
    return Prompt(
        value.strip(),
        str(number if identity is None else identity),
        category or (group.strip() if isinstance(group, str) else ""),
        image.strip() if isinstance(image, str) else "",
    )


def _table(separator: str, quoting: Any) -> Callable[[Lines, Path], Reader]:
    def begin(lines: Lines, path: Path) -> Reader:
        def parsed(rows: Iterator[Any]) -> Any:
            try:
                return next(rows, None)
            except csv.Error as error:
                raise RequestError(f"The prompt file {path} is no table: {error}.") from error

        names, begin = None, lines.position
        while names == [] or names is None:  # blank lines come before no header
            begin = lines.position
            names = parsed(csv.reader(lines, delimiter=separator, quoting=quoting, strict=True))
            if names is None:
                break
        if names and len(names) == 2 and names[0].strip().lower().endswith(PICTURES):
            names = [FILES[0], PROMPTS[0]]
            lines.go_to(begin)

        def rows(lines: Lines, first: int) -> Iterator[tuple[Place, Prompt]]:
            table = csv.DictReader(lines, names, delimiter=separator, quoting=quoting, strict=True)
            for number in count(first):
                lines.mark()
                row = parsed(table)
                if row is None:
                    return
                yield (lines.start, number, lines.check), _prompt_of(row, number, path)

        return rows

    return begin


def _object(row: Any) -> Mapping[Any, Any]:
    """A text as an object with a prompt; an object as it is; anything else as an object without a field."""
    return {"prompt": row} if isinstance(row, str) else row if isinstance(row, dict) else {}


def _parsed(text: str, where: str) -> Any:
    """JSON content, whatever is wrong with it said as a sentence: syntax, numbers of thousands of digits, depth."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The prompt file {where} is no JSON that can be read: {first_line(error)}.") from error


def _json_lines(lines: Lines, path: Path) -> Reader:
    def rows(lines: Lines, first: int) -> Iterator[tuple[Place, Prompt]]:
        lines.feeds_alone = True
        number = first
        while True:
            lines.mark()
            line = next(lines, None)
            if line is None:
                return
            if line.strip():
                row = _parsed(line, f"{path}, line {lines.count},")
                yield (lines.start, number, lines.check), _prompt_of(_object(row), number, path)
                number += 1

    return rows


def _read_json(file: IO[bytes], path: Path) -> Iterator[Prompt]:
    content = _parsed(file.read().decode("utf-8-sig"), str(path))
    if isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" not in content:
        content = _made_images(content["images"], content.get("prompts"))
    elif isinstance(content, dict) and content and all(isinstance(value, str) for value in content.values()):
        alone = _columns(tuple(content))[0] is not None
        content = [content] if alone else [{FILES[0]: name, PROMPTS[0]: text} for name, text in content.items()]
    if isinstance(content, list):
        for number, row in enumerate(content, 1):
            yield _prompt_of(_object(row), number, path)
    elif isinstance(content, dict) and isinstance(content.get("annotations"), list):
        yield from _coco_captions(content["annotations"], path)
    elif isinstance(content, dict) and content and all(isinstance(one, list) for one in content.values()):
        for category, rows in content.items():
            for number, row in enumerate(rows, 1):
                one = _prompt_of(_object(row), number, path, category)
                yield Prompt(one.text, f"{category}-{one.id}", category)
    else:
        raise RequestError(
            f"The prompt file {path} is no list of prompts; expected a JSON list of texts or of objects with one of "
            f"{', '.join(PROMPTS)}, an object of such lists by category or of texts by image, or COCO's captions."
        )


def _made_images(images: list[Any], prompts: Any) -> list[Any]:
    """What `dipp generate --json` prints, images beside their prompts, or `dipp score --json`, an object an image."""
    if not isinstance(prompts, list) or len(prompts) != len(images):
        return images
    return [{FILES[0]: name, PROMPTS[0]: text} for name, text in zip(images, prompts, strict=True)]


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


def _read_parquet(opened: IO[bytes], path: Path) -> Iterator[Prompt]:
    if missing_of(["pyarrow"]):
        raise not_installed(f"Reading {path} needs", ["pyarrow"])
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(opened, buffer_size=BUFFER)
        names = file.schema_arrow.names
        columns = _columns(tuple(names))
        wanted = names[:SHOWN] if columns[0] is None else [column for column in columns if column]
        _check_sizes(file.metadata, wanted, path)
        number = 0
        # A text that stands in many rows is held once.
        file = parquet.ParquetFile(opened, buffer_size=BUFFER, metadata=file.metadata, read_dictionary=wanted)
        for batch in file.iter_batches(BATCH, columns=wanted, use_threads=False):
            for start in range(0, len(batch), DECODED):
                for row in batch.slice(start, DECODED).to_pylist():
                    number += 1
                    yield _prompt_of(row, number, path)
    except (pyarrow.ArrowException, MemoryError) as error:
        raise RequestError(
            f"The prompt file {path} is no Parquet file that can be read: {first_line(error)}."
        ) from error


def _check_sizes(metadata: Any, wanted: Sequence[str], path: Path) -> None:
    """Refuse a file that says it is far larger than what is in it.

    Raises:
        RequestError: columns that are read say to become large, and far larger than they are.
    """
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            said, stored = column.total_uncompressed_size, column.total_compressed_size
            if column.path_in_schema.split(".")[0] in wanted and said > max(LARGE, MOST_RATIO * stored):
                raise RequestError(
                    f"The prompt file {path} says that {stored:,} bytes of it become {said:,}: that is no file of "
                    "prompts. Expected texts."
                )


def _spilled(prompts: Iterable[Prompt], file: IO[bytes]) -> Iterator[tuple[Place, Prompt]]:
    """Prompts of a format that cannot be read from anywhere, written as lines that can."""
    position = 0
    for one in prompts:
        line = json.dumps([one.text, one.id, one.category, one.file]).encode()
        file.write(line + b"\n")
        yield (position, 0, zlib.crc32(line)), one
        position += len(line) + 1
    file.flush()


def _spilled_rows(lines: Lines, first: int) -> Iterator[tuple[Place, Prompt]]:
    lines.mark()
    for line in lines:
        yield (lines.start, first, lines.check), Prompt(*json.loads(line))
        lines.mark()


_FORMATS: dict[str, Callable[[Lines, Path], Reader]] = {
    # Tables with tabs are published without quoting, so a quotation mark is part of the prompt.
    ".tsv": _table("\t", csv.QUOTE_NONE),
    ".csv": _table(",", csv.QUOTE_MINIMAL),
    ".jsonl": _json_lines,
}
