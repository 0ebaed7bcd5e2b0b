"""What an image has to show by the published metadata of its prompt: GenEval's own file, or one in its format."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dipp_prompts.published import SETS, fetched
from dipp_toolkit.errors import RequestError, first_line
from dipp_toolkit.models.files.fetching import NotHere
from dipp_toolkit.rewards.by_prompt import read_by_prompt, row_of
from dipp_toolkit.utils.messages import shown, unknown_name
from dipp_toolkit.utils.paths import user_path

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
DECIDING = ("tag", "include", "exclude")
NEAR = 0.8
"""Likeness at which a field is one of these, misspelt: `tags` is, and `stage` and `target` are not."""
RELATIONS = ("left of", "right of", "above", "below")
EXAMPLE = '{"tag": "counting", "include": [{"class": "cow", "count": 2}], "prompt": "a photo of two cows"}'


class Clause(BaseModel):
    """Objects of a class that are to be there, or not to be.

    Attributes:
        name: the class, `class` in the file.
        count: at least so many; of an `exclude` clause, fewer than so many.
        color: of each of them, one of `COLOURS`.
        position: where they stand, one of `RELATIONS`, and the number of the earlier clause to whose objects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(alias="class", min_length=1)
    count: int = Field(ge=1)
    color: Literal[COLOURS] | None = None  # type: ignore[valid-type]
    position: tuple[Literal[RELATIONS], int] | None = None  # type: ignore[valid-type]


class Metadata(BaseModel):
    """What an image of a prompt has to show. Other fields are passed over, but no misspelt one.

    Attributes:
        prompt: its text.
        tag: the task, one of `TAGS` or empty. Of these only `counting` makes a difference, by its threshold.
        include: clauses that all have to hold.
        exclude: clauses of which none may.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt: str = Field(min_length=1)
    tag: str = ""
    include: tuple[Clause, ...] = Field(min_length=1)
    exclude: tuple[Clause, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _is_spelt_right(cls, row: Any) -> Any:
        for field in row if isinstance(row, Mapping) else ():
            close = [] if field in DECIDING else get_close_matches(field.lower(), DECIDING, 1, NEAR)
            if close:
                raise ValueError(f"there is no field '{shown(field)}'. Did you mean '{close[0]}'?")
        return row

    @field_validator("tag")
    @classmethod
    def _is_a_task(cls, tag: str) -> str:
        if tag and tag not in TAGS:
            raise ValueError(unknown_name("task", tag, TAGS).removesuffix("."))
        return tag

    @model_validator(mode="after")
    def _points_back(self) -> Metadata:
        for number, clause in enumerate(self.include):
            if clause.position is not None and not 0 <= clause.position[1] < number:
                raise ValueError(
                    f"include.{number}.position points to clause {clause.position[1]}, which is no earlier one"
                )
        if any(clause.color is not None or clause.position is not None for clause in self.exclude):
            raise ValueError("an exclude clause has a class and a count alone")
        return self

    @property
    def classes(self) -> set[str]:
        """All that are spoken of."""
        return {clause.name for clause in (*self.include, *self.exclude)}


def metadata_file(given: str | Path | None = None) -> Path:
    """The user's file, or the published one, fetched where it is not here and checked by its digest.

    Raises:
        NotHere: this is a dry run, and the published one is not here.
        RequestError: it is not there.
    """
    if given is None:
        try:
            return fetched("geneval", SETS["geneval"])
        except NotHere:
            raise
        except RequestError as error:
            raise RequestError(
                f"{first_line(error).split(' Name a local copy instead')[0]} Name a local copy of it: "
                "--set reward.geneval.metadata=FILE.jsonl"
            ) from error
    path = user_path(given)
    if not path.is_file():
        raise RequestError(
            f"The option metadata of the reward 'geneval' names {path}, which is not a file (looked in "
            f"{path.parent.resolve()}); expected JSON lines such as {EXAMPLE}"
        )
    return path


def read_metadata(path: Path) -> dict[str, Metadata]:
    """Metadata by prompt.

    Raises:
        RequestError: a line is not metadata, or two lines say different things of one prompt.
    """
    return read_by_prompt(path, "metadata", _of_line, EXAMPLE)


def _of_line(content: Any) -> tuple[str, Metadata]:
    try:
        row = Metadata.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        what = str(first["msg"]).removeprefix("Value error, ")
        raise ValueError(f"{field + ': ' if field else ''}{what}") from None
    return row.prompt, row


def of_prompt(rows: Mapping[str, Metadata], prompt: str) -> Metadata:
    """The metadata of a prompt.

    Raises:
        RunError: there are none; the message names the prompt that is most like it.
    """
    return row_of(
        rows, prompt, "The reward 'geneval' has no metadata of",
        "Use the prompts of its metadata (--prompts geneval for the published ones), or name a file of your own with "
        "its option metadata.",
    )  # fmt: skip
