"""Preference data of a `datasets.Dataset`: which votes its rows hold, and images whose bytes stay where they are.

Rows are read once, a few at a time, for prompts, labels and what tells images apart: a column of identities where there
is one, a file's path, or the SHA-256 of an image's bytes, for which the bytes are read and not decoded. Pixels are
decoded when somebody asks for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError, first_line
from ..evaluation.image_files import decode_image
from ..prompts.dataset import BATCH, batched_rows
from ..utils.messages import quoted, shown
from ..utils.paths import below, check_below, user_path
from .columns import Layout, Row, SeenImage, Vote, find_layout
from .pair import Candidate, Comparison, Picture, PictureFile

if TYPE_CHECKING:
    from datasets import Dataset

IMAGE, TEXT, LIST, OTHER = "images", "texts", "lists", "other values"
UID, NOWHERE = "uid ", "row "
"""How the identity of an image begins that a column tells, or should have told."""


@dataclass(frozen=True)
class DatasetPicture:
    """An image whose bytes a dataset holds; they are read when they are asked for.

    Attributes:
        rows: the dataset's column with the image.
        index: of the row, from 0.
        item: the place in the row's list; None where a row holds one image.
        source: the dataset, for messages.
    """

    rows: Dataset
    index: int
    item: int | None = None
    source: str = "dataset"

    def read(self) -> Float[Tensor, "3 height width"]:
        """The pixels in [0, 1].

        Raises:
            RequestError: the image is missing or damaged.
        """
        (column,) = self.rows.column_names
        return decode_image(self.encoded(), f"'{column}' in row {self.index + 1} of the {self.source}").pixels

    def encoded(self) -> bytes:
        """The image's file as the dataset holds it.

        Raises:
            RequestError: it is missing.
        """
        value = self.rows[self.index].column(0)[0].as_py()
        value = value if self.item is None else value[self.item]
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise RequestError(f"The {self.source} holds no image in row {self.index + 1}.")
        return content


@dataclass
class Preferences:
    """What a dataset says.

    Attributes:
        comparisons: in the order in which votes were given where a column says it, else in that of the rows.
        layout: how its columns are laid out, for people.
        notices: what was left out and why.
    """

    comparisons: list[Comparison]
    layout: str
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ImageFolders:
    """Where a dataset's paths of images lead.

    Attributes:
        folders: in which a relative path is looked for, in order; absolute ones must lead into one of them.
        roots: further folders into which absolute paths may lead, such as the library's cache.
        anywhere: take any path: the dataset was made in Python by whoever reads it.
    """

    folders: Sequence[Path] = ()
    roots: Sequence[Path] = ()
    anywhere: bool = False

    def find(self, name: str) -> Path | None:
        """The file of a path in the dataset; None where there is none.

        Raises:
            RequestError: the path leads out of the dataset's folder.
        """
        path = user_path(name) if self.anywhere else Path(name)
        if self.anywhere or (path.is_absolute() and any(root in path.parents for root in self.roots)):
            return path if path.is_file() else None
        if path.is_absolute():
            inside = next((folder for folder in self.folders if folder.absolute() in path.parents), None)
            if inside is None:
                raise RequestError(
                    f"'{shown(name)}' leads out of the dataset's folder; what belongs to a dataset is read there "
                    "alone. Put the images beside it, or their bytes into it (Dataset.to_parquet does)."
                )
            return check_below(path, inside) if path.is_file() else None
        for folder in self.folders:
            if (folder / path).is_file():
                return below(folder, path)
            below(folder, path)
        return None


def preferences_of(datasets: Mapping[str, Dataset], name: str, folders: ImageFolders) -> Preferences:
    """The comparisons that the splits of a dataset hold.

    Args:
        datasets: the splits, by name.
        name: of the dataset, for messages.
        folders: where paths of images lead.

    Raises:
        RequestError: its columns are in no known layout, a row is not what the layout has, an image is missing, it
            holds no comparison, or columns contradict each other.
    """
    candidates = _Candidates()
    given: list[tuple[int | None, Comparison]] = []
    notices, layouts, same, rows = [], list[str](), 0, 0
    contradictions: list[bool] = []
    for split, dataset in datasets.items():
        source = f"dataset {name}" + (f", split {split}" if len(datasets) > 1 else "")
        reader = _Reader(dataset, source, folders)
        layouts.append(reader.layout.name)
        rows += len(dataset)
        for vote in reader.layout.votes(reader.rows()):
            first, second = (
                candidates.add(vote, image, maker, reader)
                for image, maker in zip((vote.first, vote.second), vote.makers, strict=True)
            )
            contradictions += [] if vote.opposite is None else [vote.opposite]
            if first is second:
                same += 1
                continue
            given.append((vote.number, Comparison(first, second, vote.outcome, vote.voter, vote.repeat)))
    if sum(contradictions) * 2 > len(contradictions):
        raise RequestError(
            f"The dataset {name} contradicts itself: of {len(contradictions):,} rows in which another column says "
            "which image was preferred (scores, labels, counts of votes or best_image_uid), "
            f"{sum(contradictions):,} say the "
            "opposite of the image that is called preferred. The columns are probably swapped; rename them "
            "(Dataset.rename_columns), or leave the other column out (Dataset.remove_columns)."
        )
    if not given:
        why = "it has no rows" if not rows else "nobody has voted on its rows"
        if same:
            why = f"the two images are the same in {'every row' if same == rows else f'each of the {same:,} votes'}"
        raise RequestError(f"The dataset {name} holds no comparison: {why}; expected votes between two images.")
    if same:
        notices.append(f"Left out: {same:,} vote{'s' * (same != 1)} between two copies of one image.")
    if any(contradictions):
        notices.append(f"In {sum(contradictions):,} of {len(contradictions):,} rows another column says the opposite.")
    if all(number is not None for number, _ in given):
        given.sort(key=lambda numbered: numbered[0] or 0)
    return Preferences([comparison for _, comparison in given], " and ".join(dict.fromkeys(layouts)), notices)


class _Candidates:
    """Images by prompt, maker and identity, numbered as they come."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], Candidate] = {}

    def add(self, vote: Vote, image: SeenImage, maker: str, reader: _Reader) -> Candidate:
        key = (vote.prompt, maker, image.identity)
        if key not in self._known:
            picture = reader.picture(image)
            self._known[key] = Candidate(len(self._known) + 1, vote.prompt, maker, picture, vote.category)
        return self._known[key]


class _Reader:
    """Rows of one split, and its images."""

    def __init__(self, dataset: Dataset, source: str, folders: ImageFolders):
        self.source, self.folders = source, folders
        kinds = {name: kind_of(feature) for name, feature in dataset.features.items()}
        self.layout: Layout = find_layout(
            list(kinds), [name for name, (kind, _) in kinds.items() if kind == LIST], source
        )
        self.columns = self.layout.find(kinds)
        for role in self.layout.compared:
            if role in self.columns and kinds[self.columns[role]] != (IMAGE, IMAGE):
                del self.columns[role]
        self._check(kinds)
        told = {role for role, uid in self.layout.uids.items() if uid in self.columns}
        images = [role for role in (*self.layout.images, *self.layout.compared) if role in self.columns]
        self.seen = [role for role in images if role not in told]
        self.told = sorted(told)
        unread = {self.columns[role] for role in told} - {self.columns[role] for role in self.seen}
        wanted = [name for name in dict.fromkeys(self.columns.values()) if name not in unread]
        self._meta = dataset.select_columns(wanted).with_format("arrow")
        self._images = {
            self.columns[role]: dataset.select_columns([self.columns[role]]).with_format("arrow") for role in images
        }
        self._paths: dict[str, str] = {}

    def _check(self, kinds: Mapping[str, tuple[str, str]]) -> None:
        """Refuse columns of texts that hold images, and the other way round.

        Raises:
            RequestError: with what was found and expected.
        """
        prompt = self.columns["prompt"]
        images = [self.columns[role] for role in self.layout.images]
        holds = {name: kinds[name][1] for name in images}
        found = ", ".join(f"'{shown(name)}' holds {kind}" for name, kind in {prompt: kinds[prompt][0], **holds}.items())
        named = " and ".join(f"'{shown(name)}'" for name in images)
        expected = f"expected texts in '{shown(prompt)}' and images in {named}"
        if kinds[prompt][0] == IMAGE:
            raise RequestError(f"The columns of the {self.source} look swapped: {found}; {expected}.")
        if kinds[prompt][0] != TEXT or any(kind not in (IMAGE, TEXT) for kind in holds.values()):
            raise RequestError(
                f"The {self.source}: {found}; {expected} (the library's Image, bytes, or paths of files beside it)."
            )

    def rows(self) -> Iterator[Row]:
        """The rows, their images seen and not decoded."""
        tables = self._meta.iter(BATCH)
        for index, values in enumerate(batched_rows(tables)):
            images = {role: self._see(index, role, values[self.columns[role]]) for role in self.seen}
            for role in self.told:
                uid = values[self.columns[self.layout.uids[role]]]
                identity = f"{UID}{uid}" if uid not in (None, "") else f"{NOWHERE}{index}, {role} of {self.source}"
                images[role] = [SeenImage(index, self.columns[role], None, identity)]
            yield Row(self.source, index + 1, self.columns, values, images)

    def _see(self, index: int, role: str, value: Any) -> list[SeenImage]:
        column = self.columns[role]
        if not self.layout.lists:
            return [self._image(index, column, None, value)]
        if not isinstance(value, list) or len(value) < 2:
            raise RequestError(
                f"The {self.source}, row {index + 1}: '{shown(column)}' holds "
                f"{'no list' if not isinstance(value, list) else f'{len(value)} image'}; expected two images or more."
            )
        return [self._image(index, column, item, one) for item, one in enumerate(value)]

    def _image(self, index: int, column: str, item: int | None, value: Any) -> SeenImage:
        """What tells an image apart.

        Raises:
            RequestError: there is none, or its file is missing.
        """
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if isinstance(content, str):
            content, path = None, content
        if isinstance(content, bytes):
            return SeenImage(index, column, item, hashlib.sha256(content).hexdigest()[:32])
        where = f"The {self.source}, row {index + 1}: '{shown(column)}'"
        if not path:
            raise RequestError(f"{where} holds no image.")
        if path not in self._paths:
            self._paths[path] = self._file(path, where)
        return SeenImage(index, column, item, self._paths[path], self._paths[path])

    def _file(self, path: str, where: str) -> str:
        if "://" in path:
            raise RequestError(
                f"{where} is the address {quoted(path)}, which is not fetched; expected images, or paths of files "
                "beside the dataset."
            )
        try:
            file = self.folders.find(path)
        except (OSError, ValueError) as error:  # a name that is too long or holds a NUL
            raise RequestError(f"{where} is {quoted(path)}, which is no file's name: {first_line(error)}.") from error
        if file is None:
            places = " or ".join(str(folder) for folder in self.folders.folders)
            raise RequestError(
                f"{where} is the text {quoted(path)}, and there is no such file{f' in {places}' if places else ''}; "
                "expected an image: the library's Image, bytes, or the path of a file beside the dataset. Preference "
                "data of texts, as for language models, holds no images."
            )
        return str(file)

    def picture(self, image: SeenImage) -> Picture:
        """Where an image's pixels are.

        Raises:
            RequestError: there is none, or its file is missing.
        """
        if image.identity.startswith((UID, NOWHERE)) and not self._has_bytes(
            image
        ):  # nothing but its identity was looked at
            value = self._images[image.column][image.row].column(0)[0].as_py()
            image = self._image(image.row, image.column, None, value)
        if image.path:
            return PictureFile(Path(image.path))
        return DatasetPicture(self._images[image.column], image.row, image.item, self.source)

    def _has_bytes(self, image: SeenImage) -> bool:
        """Whether the dataset holds an image's bytes, which are not copied for this."""
        import pyarrow

        value = self._images[image.column][image.row].column(0)[0]
        if isinstance(value, pyarrow.StructScalar) and value.is_valid and "bytes" in value:
            value = value["bytes"]
        return value.is_valid and (pyarrow.types.is_binary(value.type) or pyarrow.types.is_large_binary(value.type))


def kind_of(feature: Any) -> tuple[str, str]:
    """What a column holds, and what the items of its lists do: both the same where it holds no lists."""
    import datasets

    if isinstance(feature, datasets.Image):
        return IMAGE, IMAGE
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    if inner is not None and not isinstance(feature, dict):
        return LIST, kind_of(inner)[0]
    if isinstance(feature, dict) and {"bytes", "path"} & set(feature):
        return IMAGE, IMAGE
    kind = getattr(feature, "dtype", "")
    kind = IMAGE if kind in ("binary", "large_binary") else TEXT if kind in ("string", "large_string") else OTHER
    return kind, kind
