"""Layouts of preference data: which columns hold what, in the datasets that people publish.

| columns that it is known by | what a row is |
|---|---|
| prompt, chosen, rejected | a vote; what this toolkit exports, and how TRL calls them |
| caption, jpg_0, jpg_1, label_0 | a vote; Pick-a-Pic v1 and v2, and diffusers' scripts of Diffusion-DPO |
| prompt, path1, path2 | a vote for the first; HPDv3 |
| prompt, lists of images and of human_preference | an image preferred to others; HPD v2, training |
| prompt, lists of images and of ranks | images in an order; HPD v2, test |
| prompt, prompt_id, image, rank | an image; the rows of one prompt_id are an order; ImageRewardDB |

A prompt's column may be called by any name that prompt files know. The first layout whose columns are all there counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from ..errors import RequestError
from ..prompts.files import PROMPTS, SHOWN
from ..utils.messages import nearest, quoted, shown

YES, NO = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")
MOST_IN_A_GROUP = 256
"""Images of one prompt_id, all pairs of which are compared."""


@dataclass(frozen=True)
class SeenImage:
    """An image of a dataset, as far as it is known without its pixels.

    Attributes:
        row: where it stands, from 0.
        column: in which column.
        item: in which place of a list; None where the column holds one image a row.
        identity: equal for the same image.
        path: of its file; empty where the dataset holds its bytes.
    """

    row: int
    column: str
    item: int | None
    identity: str
    path: str = ""


@dataclass(frozen=True)
class Vote:
    """What a row says of two images.

    Attributes:
        prompt: theirs.
        first: one image.
        second: the other.
        outcome: 1 where the first was preferred, 0 where the second was, 0.5 where neither was.
        makers: of the first and of the second; empty where nothing says it.
        voter: who said it; empty where nothing says it.
        category: of the prompt.
        repeat: whether the voter had been asked before.
        number: the vote's place in the order in which votes were given, where a column says it.
        opposite: whether another column of the row says the opposite; None where none says anything.
    """

    prompt: str
    first: SeenImage
    second: SeenImage
    outcome: float
    makers: tuple[str, str] = ("", "")
    voter: str = ""
    category: str = ""
    repeat: bool = False
    number: int | None = None
    opposite: bool | None = None


@dataclass(frozen=True)
class Row:
    """A row of a dataset, by what its columns mean.

    Attributes:
        source: where it stands, for messages: `"dataset votes.parquet"`.
        number: of the row, from 1.
        columns: their names, by role.
        values: by the column's name.
        images: by role, those of the columns that hold images.
    """

    source: str
    number: int
    columns: Mapping[str, str]
    values: Mapping[str, Any]
    images: Mapping[str, Sequence[SeenImage]]

    def wrong(self, role: str, expected: str) -> RequestError:
        """What to raise where a value is not what it should be."""
        column = self.columns[role]
        return RequestError(
            f"The {self.source}, row {self.number}: '{shown(column)}' is {quoted(self.values.get(column))}; expected "
            f"{expected}."
        )

    def has(self, role: str) -> bool:
        """Whether the row says something there."""
        return role in self.columns and self.values.get(self.columns[role]) is not None

    def text(self, role: str) -> str:
        """A text, or a number as a text; empty where the row says nothing.

        Raises:
            RequestError: it is something else.
        """
        if not self.has(role):
            return ""
        value = self.values[self.columns[role]]
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise self.wrong(role, "a text")
        return str(value)

    def prompt(self) -> str:
        """The prompt.

        Raises:
            RequestError: there is none.
        """
        value = self.values.get(self.columns["prompt"])
        if not isinstance(value, str):
            raise self.wrong("prompt", "a prompt, which is a text")
        return value

    def numeral(self, role: str) -> float | None:
        """A finite number; None where the row says nothing.

        Raises:
            RequestError: it is something else.
        """
        return _number(self.values[self.columns[role]], self, role) if self.has(role) else None

    def numerals(self, role: str, count: int) -> list[float]:
        """As many numbers as there are images.

        Raises:
            RequestError: there are more or fewer, or something else.
        """
        values = self.values.get(self.columns[role])
        if not isinstance(values, list) or len(values) != count:
            raise self.wrong(role, f"a list of {count} numbers, one for each image of the row")
        return [_number(value, self, role) for value in values]

    def flag(self, role: str, otherwise: bool) -> bool:
        """Yes or no.

        Raises:
            RequestError: it is something else.
        """
        if not self.has(role):
            return otherwise
        said = str(self.values[self.columns[role]]).strip().lower()
        if said not in (*YES, *NO):
            raise self.wrong(role, "true or false")
        return said in YES


def _number(value: Any, row: Row, role: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise row.wrong(role, "a number")
    return number


@dataclass(frozen=True)
class Layout:
    """How a kind of dataset holds votes.

    Attributes:
        name: for people.
        needs: names of columns that it is known by, by role, each the first that is there.
        may: further columns that are read where they are there.
        images: roles of columns that hold images.
        uids: by role of an image, the role of the column with the image's identity.
        votes: the votes that rows hold.
        lists: whether the columns of images hold lists.
        compared: roles of columns with the same images once more, for what another column says of them.
    """

    name: str
    needs: Mapping[str, tuple[str, ...]]
    images: tuple[str, ...]
    votes: Callable[[Iterable[Row]], Iterator[Vote]]
    may: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    uids: Mapping[str, str] = field(default_factory=dict)
    lists: bool = False
    compared: tuple[str, ...] = ()

    def find(self, names: Iterable[str]) -> dict[str, str]:
        """The columns' names by role, as far as they are there; case does not count."""
        by_name = {name.strip().lower(): name for name in names}
        roles = {**self.needs, **self.may}
        found = {
            role: next((by_name[name] for name in wanted if name in by_name), None) for role, wanted in roles.items()
        }
        return {role: name for role, name in found.items() if name is not None}

    def missing(self, names: Iterable[str]) -> list[str]:
        """Roles of columns that are needed and are not there."""
        found = self.find(names)
        return [role for role in self.needs if role not in found]

    def expected(self) -> str:
        """The columns that it is known by, for messages: `"prompt, chosen, rejected"`."""
        return ", ".join(names[0] for names in self.needs.values())


def find_layout(names: Sequence[str], lists: Iterable[str], source: str) -> Layout:
    """The layout of a dataset's columns.

    Args:
        names: of the columns.
        lists: those that hold lists.
        source: the dataset, for messages: `"dataset votes.parquet"`.

    Raises:
        RequestError: it has none of the layouts; the message has the nearest one and the columns that it lacks.
    """
    lists = set(lists)

    def fits(layout: Layout) -> bool:
        columns = layout.find(names)
        return all((columns[role] in lists) == layout.lists for role in layout.images)

    whole = [layout for layout in LAYOUTS if not layout.missing(names)]
    for layout in whole:
        if fits(layout):
            return layout
    if whole:
        layout, columns = whole[0], whole[0].find(names)
        role = next(role for role in layout.images if (columns[role] in lists) != layout.lists)
        kinds = ("a list a row", "one image a row") if columns[role] in lists else ("one image a row", "a list a row")
        raise RequestError(
            f"The {source}: the column '{shown(columns[role])}' holds {kinds[0]}; expected {kinds[1]}, as "
            f"{layout.name} has it."
        )
    closest = max(LAYOUTS, key=lambda layout: _likeness(layout, names))
    lacking = []
    for role in closest.missing(names):
        guess = _guess(closest.needs[role], names)
        lacking.append(f"{closest.needs[role][0]}{f' (is it {shown(guess)!r}?)' if guess else ''}")
    listing = ", ".join(map(shown, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
    others = "; ".join(f"{layout.expected()} ({layout.name})" for layout in LAYOUTS if layout is not closest)
    raise RequestError(
        f"The {source} is no preference data that can be read: it has the columns {listing or 'none'}, and "
        f"{closest.name} ({closest.expected()}) also needs {', '.join(lacking)}. Rename the columns "
        f"(Dataset.rename_column). Other layouts: {others}."
    )


def _guess(wanted: tuple[str, ...], names: Sequence[str]) -> str | None:
    return next((guess for name in wanted if (guess := nearest(name, names)) is not None), None)


def _likeness(layout: Layout, names: Sequence[str]) -> float:
    """How many of a layout's columns are there; one with nearly the name counts half."""
    missing = layout.missing(names)
    near = sum(_guess(layout.needs[role], names) is not None for role in missing)
    return len(layout.needs) - len(missing) + near / 2


def _chosen(rows: Iterable[Row]) -> Iterator[Vote]:
    for row in rows:
        chosen, rejected = row.images["chosen"][0], row.images["rejected"][0]
        outcome = row.numeral("outcome") if row.has("outcome") else 1.0
        if outcome not in (1.0, 0.5):
            raise row.wrong("outcome", "1 where the chosen image was preferred, or 0.5 of a tie")
        vote = _vote(row, chosen, rejected, outcome, ("chosen_maker", "rejected_maker"), _says_opposite(row))
        yield vote if row.flag("chosen_first", True) else _turned(vote)


def _turned(vote: Vote) -> Vote:
    """The same with the second image first."""
    return replace(
        vote, first=vote.second, second=vote.first, outcome=1 - vote.outcome, makers=(vote.makers[1], vote.makers[0])
    )


def _says_opposite(row: Row) -> bool | None:
    """Whether scores, or labels of the same two images, say that the rejected one was preferred."""
    better, worse = row.numeral("chosen_score"), row.numeral("rejected_score")
    if better is not None and worse is not None and better != worse:
        return better < worse
    label, pair = row.numeral("label_0"), [row.images.get(role, ()) for role in ("jpg_0", "jpg_1")]
    if label is None or not all(pair) or label == 0.5:
        return None
    preferred, other = (pair[0][0], pair[1][0]) if label > 0.5 else (pair[1][0], pair[0][0])
    chosen = row.images["chosen"][0].identity
    return None if chosen not in (preferred.identity, other.identity) else chosen == other.identity


def _pickapic(rows: Iterable[Row]) -> Iterator[Vote]:
    for row in rows:
        label, other = row.numeral("label_0"), row.numeral("label_1")
        if label is None or not row.flag("has_label", True):
            continue  # nobody has voted
        if label not in (0.0, 0.5, 1.0):
            raise row.wrong("label_0", "1 where the first image was preferred, 0 where the second was, 0.5 of a tie")
        if other is not None and label + other != 1:
            raise RequestError(
                f"The {row.source}, row {row.number}: '{row.columns['label_0']}' is {label:g} and "
                f"'{row.columns['label_1']}' is {other:g}, which contradict each other; expected 1 and 0, 0 and 1, or "
                "0.5 twice. Leave such rows out first (Dataset.filter)."
            )
        first, second = row.images["jpg_0"][0], row.images["jpg_1"][0]
        best = row.text("best_image_uid")
        uids = (row.text("image_0_uid"), row.text("image_1_uid"))
        told = best in uids and uids[0] != uids[1] and label != 0.5
        opposite = best != uids[0 if label == 1 else 1] if told else None
        yield _vote(row, first, second, label, ("model_0", "model_1"), opposite)


def _hpdv3(rows: Iterable[Row]) -> Iterator[Vote]:
    for row in rows:
        opposite = None
        if row.has("choice_dist"):
            first, second = row.numerals("choice_dist", 2)
            opposite = None if first == second else first < second
        yield _vote(row, row.images["path1"][0], row.images["path2"][0], 1.0, ("model1", "model2"), opposite)


def _vote(
    row: Row,
    first: SeenImage,
    second: SeenImage,
    outcome: float,
    makers: tuple[str, str] | None = None,
    opposite: bool | None = None,
) -> Vote:
    number = row.numeral("number")
    return Vote(
        row.prompt(),
        first,
        second,
        outcome,
        (row.text(makers[0]), row.text(makers[1])) if makers else ("", ""),
        row.text("voter"),
        row.text("category"),
        row.flag("repeat", False),
        None if number is None else int(number),
        opposite,
    )


def _preferred(rows: Iterable[Row]) -> Iterator[Vote]:
    """One image of a row is preferred to each of the others, of which nothing else is known."""
    for row in rows:
        images = row.images["images"]
        preferred = row.numerals("preference", len(images))
        if any(value not in (0.0, 1.0) for value in preferred):
            raise row.wrong("preference", "1 for the preferred image and 0 for others")
        if len(images) == 2 and preferred[0] == preferred[1]:
            raise row.wrong("preference", "1 for one image and 0 for the other")
        for first, second in combinations(range(len(images)), 2):
            if preferred[first] != preferred[second]:
                yield _vote(row, images[first], images[second], preferred[first])


def _ranked(rows: Iterable[Row]) -> Iterator[Vote]:
    for row in rows:
        images = row.images["images"]
        ranks = row.numerals("rank", len(images))
        for first, second in combinations(range(len(images)), 2):
            yield _vote(row, images[first], images[second], _by_rank(ranks[first], ranks[second]))


def _by_rank(first: float, second: float) -> float:
    return 0.5 if first == second else float(first < second)


def _grouped(rows: Iterable[Row]) -> Iterator[Vote]:
    """All pairs of the images of one prompt_id, whose rows may stand anywhere."""
    groups: dict[str, list[tuple[Row, float]]] = {}
    for row in rows:
        rank = row.numeral("rank")
        if rank is None:
            raise row.wrong("rank", "a number")
        groups.setdefault(row.text("prompt_id"), []).append((row, rank))
    for group in groups.values():
        if len(group) > MOST_IN_A_GROUP:
            raise group[-1][0].wrong("prompt_id", f"at most {MOST_IN_A_GROUP} images of one prompt_id")
        for (first, better), (second, worse) in combinations(group, 2):
            if first.prompt() != second.prompt():
                raise second.wrong("prompt", f"the prompt of row {first.number}, which has the same prompt_id")
            yield _vote(first, first.images["image"][0], second.images["image"][0], _by_rank(better, worse))


OF_A_VOTE = {
    "voter": ("voter", "user_id"),
    "category": ("category", "classification"),
    "repeat": ("repeat",),
    "number": ("number",),
}
LABELS = ("label_0", "label_1")
LAYOUTS = (
    Layout(
        "the layout of TRL",
        {"prompt": PROMPTS, "chosen": ("chosen",), "rejected": ("rejected",)},
        ("chosen", "rejected"),
        _chosen,
        {
            **OF_A_VOTE,
            "outcome": ("outcome",),
            "chosen_first": ("chosen_first",),
            "chosen_maker": ("chosen_maker",),
            "rejected_maker": ("rejected_maker",),
            "chosen_uid": ("chosen_uid",),
            "rejected_uid": ("rejected_uid",),
            "chosen_score": ("chosen_score", "score_chosen"),
            "rejected_score": ("rejected_score", "score_rejected"),
            "jpg_0": ("jpg_0",),
            "jpg_1": ("jpg_1",),
            "label_0": ("label_0",),
        },
        {"chosen": "chosen_uid", "rejected": "rejected_uid"},
        compared=("jpg_0", "jpg_1"),
    ),
    Layout(
        "Pick-a-Pic",
        {
            "prompt": (PROMPTS[2], *PROMPTS[:2], *PROMPTS[3:]),
            "jpg_0": ("jpg_0",),
            "jpg_1": ("jpg_1",),
            "label_0": ("label_0",),
        },
        ("jpg_0", "jpg_1"),
        _pickapic,
        {
            **OF_A_VOTE,
            **{
                name: (name,)
                for name in (
                    "label_1", "has_label", "image_0_uid", "image_1_uid", "best_image_uid", "model_0", "model_1",
                )
            },
        },
        {"jpg_0": "image_0_uid", "jpg_1": "image_1_uid"},
    ),
    Layout(
        "HPDv3",
        {"prompt": PROMPTS, "path1": ("path1",), "path2": ("path2",)},
        ("path1", "path2"),
        _hpdv3,
        {**OF_A_VOTE, "choice_dist": ("choice_dist",), "model1": ("model1",), "model2": ("model2",)},
    ),
    Layout(
        "HPD v2",
        {
            "prompt": PROMPTS,
            "images": ("image_path", "file_path", "images", "image"),
            "preference": ("human_preference",),
        },
        ("images",),
        _preferred,
        OF_A_VOTE,
        lists=True,
    ),
    Layout(
        "ranks of HPD v2",
        {"prompt": PROMPTS, "images": ("image_path", "file_path", "images", "image"), "rank": ("rank",)},
        ("images",),
        _ranked,
        OF_A_VOTE,
        lists=True,
    ),
    Layout(
        "ImageRewardDB",
        {"prompt": PROMPTS, "prompt_id": ("prompt_id",), "image": ("image", "image_path"), "rank": ("rank",)},
        ("image",),
        _grouped,
        OF_A_VOTE,
    ),
)  # fmt: skip
"""In the order in which they are tried."""
