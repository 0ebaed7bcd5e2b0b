"""Votes as a dataset that anybody's `datasets.load_dataset` reads: Parquet with the images inside, and a card.

A tie, and an answer to a question that had been asked before, stand in a split of their own: a trainer that reads
`chosen` and `rejected` knows neither, and would learn a tie as a preference and a repetition twice. Every row has its
number in the order of all votes, so that nothing is lost when both splits are read again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RequestError, RunError
from ..utils.atomic import whole_folder, write_text
from ..utils.disk_errors import reason_of, way_on
from ..utils.messages import unknown_name
from ..utils.paths import check_folder_place, user_path
from .loading import APART, TRAIN, quiet_datasets, read_preferences
from .pair import Comparison

CARD, DATA = "README.md", "data"
DIGEST = 32
"""Hexadecimal digits of an image's identity."""
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
"""How the hub says how many rows there are."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: the dataset.
        rows: by split.
    """

    folder: Path
    rows: Mapping[str, int]


def export_votes(votes: str | Path, folder: str | Path, *, layout: str = "chosen") -> Exported:
    """Write votes as a dataset.

    Args:
        votes: where they are; whatever `read_preferences` reads.
        folder: of the dataset; missing or empty.
        layout: `chosen` (prompt, chosen, rejected) or `pickapic` (caption, jpg_0, jpg_1, label_0, what diffusers'
            scripts of Diffusion-DPO read).

    Raises:
        RequestError: nobody has voted, an image is missing, the folder is in use, or the layout is unknown.
        RunError: the disk does not take it.
    """
    check_target(user_path(folder))
    return export_comparisons(read_preferences(votes).comparisons, folder, layout=layout)


def check_target(folder: Path) -> None:
    """Refuse a place where something is.

    Raises:
        RequestError: it is a file, or a folder that is not empty.
    """
    check_folder_place(folder, "dataset's folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise RequestError(f"The folder {folder} is not empty; name one that is missing or empty.")


def export_comparisons(comparisons: Sequence[Comparison], folder: str | Path, *, layout: str = "chosen") -> Exported:
    """Write comparisons as a dataset; see `export_votes`.

    Raises:
        RequestError: there are none, an image is missing, the folder is in use, or the layout is unknown.
        RunError: the disk does not take it.
    """
    import datasets

    folder = user_path(folder)
    check_target(folder)
    if layout not in ROWS:
        raise RequestError(unknown_name("layout", layout, ROWS))
    if not comparisons:
        raise RequestError("There are no votes to export.")
    features, row_of = _features(layout), ROWS[layout]
    numbered = list(enumerate(comparisons))
    splits = {
        TRAIN: [(number, one) for number, one in numbered if one.winner is not None and not one.repeat],
        APART: [(number, one) for number, one in numbered if one.winner is None or one.repeat],
    }
    splits = {split: rows for split, rows in splits.items() if rows}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as beside, quiet_datasets():
            (beside / DATA).mkdir(parents=True)
            cache, files = beside / ".cache", {}
            for split, rows in splits.items():

                def made(rows: list[tuple[int, Comparison]] = rows) -> Iterator[dict[str, Any]]:
                    for number, comparison in rows:
                        yield row_of(comparison, number)

                # Through the disk and not through memory; the library's cache would keep a copy.
                table = datasets.Dataset.from_generator(
                    made, features=features, cache_dir=str(cache), fingerprint=f"dipp-{split}"
                )
                table.to_parquet(beside / DATA / f"{split}.parquet")
                del table
                files[split] = _named(beside / DATA / f"{split}.parquet")
            shutil.rmtree(cache)
            counts = {split: len(rows) for split, rows in splits.items()}
            write_text(beside / CARD, _card(comparisons, counts, files, layout))
    except datasets.exceptions.DatasetGenerationError as error:
        cause = error.__cause__
        if isinstance(cause, RequestError):  # an image that is missing
            raise cause from None
        raise RunError(f"Cannot write the dataset {folder}: {cause or error}.") from error
    except OSError as error:
        again = way_on(error, "Run the same command again.")
        raise RunError(f"Cannot write the dataset {folder}: {reason_of(error)}. {again}") from error
    return Exported(folder, counts)


def _named(file: Path) -> str:
    """Rename a split's file as the hub calls it, with a digest; returns its path in the dataset.

    The card names the file, and the library (datasets 5.2) finds its cached copy of a folder by the folder's name and
    its card: without the digest, `load_dataset` would give the rows of an earlier dataset of the same name.
    """
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    return f"{DATA}/{file.rename(file.with_name(f'{file.stem}-00000-of-00001-{digest}.parquet')).name}"


def _image(comparison: Comparison) -> tuple[tuple[bytes, str], tuple[bytes, str]]:
    """Bytes and identity of the first and of the second."""
    contents = (comparison.first.picture.encoded(), comparison.second.picture.encoded())
    first, second = ((content, hashlib.sha256(content).hexdigest()[:DIGEST]) for content in contents)
    return first, second


def _chosen_row(comparison: Comparison, number: int) -> dict[str, Any]:
    images = _image(comparison)
    first_chosen = comparison.winner is not comparison.second
    sides = ((comparison.first, images[0]), (comparison.second, images[1]))
    (chosen, (chosen_image, chosen_uid)), (rejected, (rejected_image, rejected_uid)) = (
        sides if first_chosen else sides[::-1]
    )
    return {
        "prompt": comparison.first.prompt,
        "chosen": {"bytes": chosen_image, "path": None},
        "rejected": {"bytes": rejected_image, "path": None},
        "outcome": 0.5 if comparison.winner is None else 1.0,
        "voter": comparison.voter,
        "chosen_maker": chosen.maker,
        "rejected_maker": rejected.maker,
        "chosen_uid": chosen_uid,
        "rejected_uid": rejected_uid,
        "chosen_first": first_chosen,
        "category": comparison.first.category,
        "repeat": comparison.repeat,
        "number": number,
    }


def _pickapic_row(comparison: Comparison, number: int) -> dict[str, Any]:
    (first, first_uid), (second, second_uid) = _image(comparison)
    best = {1.0: first_uid, 0.0: second_uid}.get(comparison.outcome, "tie")
    return {
        "caption": comparison.first.prompt,
        "jpg_0": first,
        "jpg_1": second,
        "label_0": comparison.outcome,
        "label_1": 1 - comparison.outcome,
        "has_label": True,
        "are_different": first_uid != second_uid,
        "image_0_uid": first_uid,
        "image_1_uid": second_uid,
        "best_image_uid": best,
        "user_id": comparison.voter,
        "model_0": comparison.first.maker,
        "model_1": comparison.second.maker,
        "category": comparison.first.category,
        "repeat": comparison.repeat,
        "number": number,
    }


ROWS: Mapping[str, Callable[[Comparison, int], dict[str, Any]]] = {"chosen": _chosen_row, "pickapic": _pickapic_row}
"""A comparison as a row, by layout."""
KINDS = {
    "chosen": "image",
    "rejected": "image",
    "jpg_0": "binary",  # which diffusers' scripts decode themselves
    "jpg_1": "binary",
    "outcome": "float64",
    "label_0": "float64",
    "label_1": "float64",
    "has_label": "bool",
    "are_different": "bool",
    "chosen_first": "bool",
    "repeat": "bool",
    "number": "int64",
}
"""Types of columns; others are texts."""
MEANING = {
    "prompt": "what both images were made for",
    "caption": "what both images were made for",
    "chosen": "the preferred image; of a tie, the one that was shown first",
    "rejected": "the other image",
    "jpg_0": "the image that was shown first, on the left, as a file's bytes",
    "jpg_1": "the other image",
    "outcome": "1 where `chosen` was preferred, 0.5 where neither was",
    "label_0": "1 where `jpg_0` was preferred, 0 where `jpg_1` was, 0.5 where neither was",
    "label_1": "1 less `label_0`",
    "voter": "who voted",
    "user_id": "who voted",
    "chosen_maker": "what made the chosen image",
    "rejected_maker": "what made the other",
    "model_0": "what made `jpg_0`",
    "model_1": "what made `jpg_1`",
    "chosen_first": "whether `chosen` was shown first, on the left",
    "category": "of the prompt",
    "repeat": "whether the voter had been asked about this pair before",
    "number": "the vote's place among all votes, from 0",
}
"""What the card says of columns."""


def _columns(layout: str) -> list[str]:
    return CHOSEN_COLUMNS if layout == "chosen" else PICKAPIC_COLUMNS


CHOSEN_COLUMNS = [
    "prompt", "chosen", "rejected", "outcome", "voter", "chosen_maker", "rejected_maker", "chosen_uid", "rejected_uid",
    "chosen_first", "category", "repeat", "number",
]  # fmt: skip
PICKAPIC_COLUMNS = [
    "caption", "jpg_0", "jpg_1", "label_0", "label_1", "has_label", "are_different", "image_0_uid", "image_1_uid",
    "best_image_uid", "user_id", "model_0", "model_1", "category", "repeat", "number",
]  # fmt: skip


def _features(layout: str) -> Any:
    import datasets

    def feature(column: str) -> Any:
        kind = KINDS.get(column, "string")
        return datasets.Image() if kind == "image" else datasets.Value(kind)

    return datasets.Features({column: feature(column) for column in _columns(layout)})


def _card(comparisons: Sequence[Comparison], counts: Mapping[str, int], files: Mapping[str, str], layout: str) -> str:
    """The dataset's card: what the hub reads, and what people do."""
    from huggingface_hub import DatasetCardData

    data_files = [{"split": split, "path": file} for split, file in files.items()]
    total = sum(counts.values())
    data = DatasetCardData(
        configs=[{"config_name": "default", "data_files": data_files}],
        task_categories=["text-to-image"],
        tags=["preference", "human-feedback", "dipp-toolkit"],
        size_categories=next((size for most, size in SIZES.items() if total < most), "1M<n<10M"),
    )
    prompts = len({comparison.first.prompt for comparison in comparisons})
    voters = len({comparison.voter for comparison in comparisons})
    votes, voted, made_for = (
        f"{count:,} {what}{'s' * (count != 1)}"
        for count, what in ((total, "vote"), (voters, "voter"), (prompts, "prompt"))
    )
    rows = "\n".join(f"| `{column}` | {MEANING[column]} |" for column in _columns(layout) if column in MEANING)
    splits = "\n".join(f"| `{split}` | {count:,} | {SPLITS[split]} |" for split, count in counts.items())
    return f"""---
{data.to_yaml()}
---

# Votes on pairs of images

{votes} of {voted} on images of {made_for}, exported by dipp-toolkit.

| split | rows | what |
|---|---|---|
{splits}

| column | what it holds |
|---|---|
{rows}

Voters stand here under the names that they typed. Before this is published, replace what they do not want to be read.
"""


SPLITS = {
    TRAIN: "votes for one of two images, each question once",
    APART: "ties, and answers to questions that had been asked before",
}
