"""Preference data by its place: votes of this toolkit, or a dataset of somebody's.

A place is a folder of votes, a folder that `datasets` wrote (`save_to_disk`, or Parquet with a card), a file, or the
name of a dataset on the hub. What is to be read of a dataset may stand behind it, as with prompt sets:
`owner/name?split=train[:1000]&stream=yes`.
"""

from __future__ import annotations

import csv
import hashlib
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, first_line
from ..models.files.fetching import check_fetching
from ..prompts.subsets import split_name
from ..utils.messages import shown, unknown_name
from ..utils.paths import is_local_name, is_there, user_path
from .columns import NO, YES
from .dataset import ImageFolders, Preferences, preferences_of
from .pair import Comparison
from .vote_file import FILE, VoteFile

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

OPTIONS = ("split", "config", "revision", "stream")
TRAIN, APART = "train", "ties_and_repeats"
"""Splits of an exported dataset: what every trainer may count, and what a fit of pairs leaves out."""
SPLIT = re.compile(r"(?P<name>[\w.-]+)(?:\[(?P<start>\d*):(?P<stop>\d*)\])?")
BUILDERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    ".parquet": ("parquet", {}),
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".arrow": ("arrow", {}),
    ".csv": ("csv", {"keep_default_na": False, "sep": ","}),
    ".tsv": ("csv", {"keep_default_na": False, "sep": "\t"}),
}
"""The library's reader of a file, by its ending."""
ON_DISK = ("dataset_info.json", "dataset_dict.json")
BESIDE = "images"
NO_ROWS = "corresponds to no data"
"""What the library says of a split without rows."""


def load_comparisons(place: str | Path | Dataset | DatasetDict) -> list[Comparison]:
    """What voters said, in order; see `read_preferences`.

    Raises:
        RequestError: as `read_preferences`.
    """
    return read_preferences(place).comparisons


def read_preferences(place: str | Path | Dataset | DatasetDict) -> Preferences:
    """What voters said, and what was left out of it.

    Args:
        place: a folder of votes or its `votes.sqlite`; a folder that `datasets` wrote; a `.parquet`, `.jsonl`, `.json`,
            `.csv`, `.tsv` or `.arrow` file; the name of a dataset on the hub; or a dataset. Behind what is no folder of
            votes may stand `?split=NAME[from:to]`, `config`, `revision` and `stream=yes`.

    Raises:
        NotHere: this is a dry run, and it would have to be fetched.
        RequestError: it is not there, is something else, holds no vote, or its columns are in no known layout; see
            `columns`.
    """
    if not isinstance(place, str | Path):
        return preferences_of(_of_python(place), "from Python", ImageFolders(anywhere=True))
    name, options = (str(place), {}) if is_there(place) else split_name(str(place))
    path = user_path(name)
    if path.name == FILE or (path / FILE).exists():
        return _votes(path, options)
    for option in options:
        if option not in OPTIONS:
            raise RequestError(unknown_name("part of a dataset", option, OPTIONS))
    if path.is_file() and path.suffix.lower() not in BUILDERS:
        raise RequestError(
            f"{path} is no file of preference data; expected a folder of votes, a folder of a dataset, or a file that "
            f"ends in {', '.join(BUILDERS)}."
        )
    if not path.exists() and path.suffix.lower() in BUILDERS:
        raise RequestError(f"There is no file {path}.")
    if not path.exists() and is_local_name(name):
        VoteFile.open(path).close()  # which says that there is none, and how votes are given
    splits = _splits(name, path, options)
    return preferences_of(splits, name, _folders(path, splits))


def _votes(path: Path, options: Mapping[str, str]) -> Preferences:
    if options:
        raise RequestError(f"{path} is a folder of votes, which has no parts; leave ?{next(iter(options))}=... out.")
    with VoteFile.open(path) as votes:
        comparisons = votes.comparisons()
        folder = votes.folder
    if not comparisons:
        raise RequestError(f"Nobody has voted in {folder} yet: dipp vote {shlex.quote(str(folder))}")
    return Preferences(comparisons, "votes of dipp vote")


def _of_python(dataset: Any) -> dict[str, Dataset]:
    import datasets

    if isinstance(dataset, datasets.Dataset):
        return {TRAIN: dataset}
    if isinstance(dataset, datasets.DatasetDict):
        return _chosen_splits(dataset, "", "from Python")
    raise RequestError(
        f"A {type(dataset).__name__} is no preference data; expected a place, or a datasets.Dataset that does not "
        "stream."
    )


def _splits(name: str, path: Path, options: Mapping[str, str]) -> dict[str, Dataset]:
    """The splits that are asked for, by name.

    Raises:
        RequestError: the dataset cannot be loaded, or has no such split.
    """
    import datasets

    split, stream = options.get("split", ""), options.get("stream", "no").lower()
    if stream not in (*YES, *NO):
        raise RequestError(f"stream is '{shown(stream)}'; expected yes or no.")
    wanted = _wanted(split)
    if stream in YES and (wanted is None or wanted["stop"] in (None, "")):
        raise RequestError(
            f"What streams has to end somewhere: name the rows that are wanted, as in "
            f"'{shown(name)}?stream=yes&split=train[:1000]'."
        )
    with _sentences(name, path), quiet_datasets():
        if path.is_dir() and any((path / file).is_file() for file in ON_DISK):
            loaded: Any = datasets.load_from_disk(str(path))
        else:
            loaded = _load(name, path, options, streaming=stream in YES)
    if isinstance(loaded, datasets.Dataset):
        loaded = {str(loaded.split or TRAIN): loaded}
    chosen = _chosen_splits(loaded, split, name)
    if stream not in YES:
        return chosen
    with _sentences(name, path), quiet_datasets():
        # Bytes and no pictures, of rows that are few.
        return {key: _held(rows) for key, rows in chosen.items()}


def _load(name: str, path: Path, options: Mapping[str, str], streaming: bool) -> Any:
    import datasets

    config, revision = options.get("config"), options.get("revision")
    if path.is_file():
        builder, settings = BUILDERS[path.suffix.lower()]
        if builder == "csv":
            settings = {**settings, "features": _texts(path, settings["sep"])}
        return datasets.load_dataset(builder, data_files=_literal(path), streaming=streaming, **settings)
    if path.is_dir():
        return datasets.load_dataset(str(path), config, streaming=streaming, cache_dir=_cache_of(path))
    check_fetching(f"the dataset huggingface.co/datasets/{name}")
    return datasets.load_dataset(name, config, revision=revision, streaming=streaming)


def _texts(path: Path, separator: str) -> Any:
    """All columns of a table as texts, so that the prompt 007 stays one, and so does the prompt NA.

    Raises:
        OSError, UnicodeError, csv.Error: it cannot be read as a table.
    """
    import datasets

    with path.open(encoding="utf-8-sig", newline="") as file:
        names = next(filter(None, csv.reader(file, delimiter=separator)), [])
    return datasets.Features({name: datasets.Value("string") for name in names})


def _cache_of(folder: Path) -> str:
    """Where the library keeps its copy of a folder: a place for each state of the folder's files.

    The library's own place (datasets 5.2) is the same for all folders of one name with one card, whatever they hold, so
    that it would give the rows of another folder, or of this one before it was written anew.
    """
    import datasets

    digest = hashlib.sha256(str(folder.resolve()).encode())
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        state = file.stat()
        digest.update(f"\0{file.relative_to(folder)}\0{state.st_size}\0{state.st_mtime_ns}".encode())
    return str(Path(datasets.config.HF_DATASETS_CACHE) / f"dipp-{digest.hexdigest()[:16]}")


def _literal(path: Path) -> str:
    """A path as a pattern that means it alone."""
    return re.sub(r"([*?[])", r"[\1]", str(path.absolute()))


def _held(rows: Any) -> Dataset:
    """Rows of a stream, in memory."""
    import datasets

    held = datasets.Dataset.from_list(list(rows.decode(False)), features=rows.features)
    return held


def _wanted(split: str) -> re.Match[str] | None:
    """A split's name and its rows; None where nothing is asked for.

    Raises:
        RequestError: it is written otherwise.
    """
    wanted = SPLIT.fullmatch(split)
    if split and wanted is None:
        raise RequestError(f"split is '{shown(split)}'; expected a name, or a name with rows: train[:1000].")
    return wanted


def _chosen_splits(loaded: Mapping[str, Any], split: str, name: str) -> dict[str, Any]:
    """The split that is asked for; else `train`, with the ties of an exported dataset, or the only one.

    Raises:
        RequestError: there is no such split, or several and none is asked for.
    """
    wanted = _wanted(split)
    if wanted is None:
        usual = [key for key in (TRAIN, APART) if key in loaded] or list(loaded)
        if len(usual) > 1 and usual != [TRAIN, APART]:
            raise RequestError(
                f"The dataset {name} has the splits {', '.join(map(shown, usual))}; say which one: "
                f"'{shown(name)}?split={shown(usual[0])}'."
            )
        return {key: loaded[key] for key in usual}
    key = wanted["name"]
    if key not in loaded:
        raise RequestError(unknown_name("split", key, loaded))
    start, stop = (None if not number else int(number) for number in (wanted["start"], wanted["stop"]))
    rows = loaded[key]
    if not hasattr(rows, "select"):  # it streams
        return {key: rows.skip(start or 0).take(max((stop or 0) - (start or 0), 0))}
    return {key: rows.select(range(len(rows))[start:stop]) if wanted[0] != key else rows}


def _folders(path: Path, splits: Mapping[str, Dataset]) -> ImageFolders:
    """Where paths of images in a dataset may lead: beside it, to `images` or a folder called like its file, and into
    the library's caches."""
    import datasets
    from huggingface_hub import constants

    caches = [
        Path(datasets.config.HF_CACHE_HOME),
        Path(datasets.config.HF_DATASETS_CACHE),
        Path(constants.HF_HUB_CACHE),
    ]
    if path.is_file():
        folder = path.absolute().parent
        return ImageFolders([folder, folder / path.stem, folder / BESIDE], caches)
    if path.is_dir():
        folder = path.absolute()
        return ImageFolders([folder, *(folder / split for split in splits), folder / BESIDE], caches)
    return ImageFolders([], caches)


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """No progress bars and no log of the library: what goes wrong is said once, as a sentence."""
    import datasets
    import datasets.utils.logging as library

    bars, level = datasets.is_progress_bar_enabled(), library.get_verbosity()
    datasets.disable_progress_bars()
    library.set_verbosity(library.CRITICAL)
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()


@contextmanager
def _sentences(name: str, path: Path) -> Iterator[None]:
    """What goes wrong in the library as a sentence."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:  # the library, pyarrow, pandas and the hub's client raise errors of several libraries
        reason = first_line(_cause(error))
        reason = "it has no rows" if NO_ROWS in reason else reason
        if path.exists():
            expected = "expected votes of dipp vote, or preference data that datasets.load_dataset reads"
            raise RequestError(f"Cannot read the dataset {path}: {reason}; {expected}.") from error
        raise RequestError(
            f"There is no file or folder {shown(name)}, and the dataset of this name cannot be loaded from the hub: "
            f"{reason}."
        ) from error


def _cause(error: BaseException) -> BaseException:
    """What an error comes from: the library's own says that something went wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
