"""What `dipp bench` writes and `dipp leaderboard` reads: one JSON object a line, each a whole row of the leaderboard.

A row holds all that its numbers, its tests against other rows and its pictures need, so that files of several people
can be put together, checked and shown without anything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from ...errors import RequestError, first_line
from ...events import Warned
from ...utils.json_files import parse_untrusted, read_bytes
from ...utils.json_forms import mistake_in
from ...utils.jsonl import numbered_lines

SCHEMA = 1
MOST_BYTES = 2**29
"""Of a file of rows; a row with its pictures takes up to a few megabytes."""
Intervals = Literal["percentile-bootstrap", "skew-corrected-t"]
BOOTSTRAP: Intervals = "percentile-bootstrap"
SKEW_CORRECTED: Intervals = "skew-corrected-t"
"""How intervals over prompts were made: before and since `dipp_toolkit.evaluation.intervals.mean_interval`."""
Role = Literal["reward", "judge", "metric", "cost"]
Better = Literal["higher", "lower", ""]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(_Part):
    """One number of a row, with a 95 % interval.

    Attributes:
        mean: the number: a mean over prompts, or a metric of the whole set.
        low: end of the interval; None where only the number is known, as in most papers.
        high: its other end.
        role: `reward`, `judge`, `metric` or `cost`.
        better: which way is better; empty where neither is.
        per_prompt: the mean over seeds for each prompt, in the protocol's order, rounded to 5 significant digits; None
            for a number of the whole set.
        by_category: the same figure over the prompts of each category.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    role: Role = "reward"
    better: Better = "higher"
    per_prompt: tuple[float, ...] | None = None
    by_category: dict[str, tuple[float, float, float]] = Field(default_factory=dict)


class PromptValues:
    """`per_prompt` of figures as float64 tensors, `(P,)`, each made once for all pairs that a row is compared in."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Figure, Tensor | None]] = {}

    def __call__(self, figure: Figure | None) -> Tensor | None:
        """The tensor; None where there is no figure, or no value a prompt."""
        if figure is None:
            return None
        if id(figure) not in self._made:  # the figure is kept beside it, so that its id stays its own
            values = figure.per_prompt
            made = None if values is None else torch.tensor(values, dtype=torch.float64)
            self._made[id(figure)] = figure, made
        return self._made[id(figure)][1]


class EvaluationProtocol(_Part):
    """What has to be equal for two rows to be compared.

    Attributes:
        prompts: name of the prompt set.
        digest: SHA-256 of the prompts' texts and ids, in order.
        count: how many prompts.
        seeds: the noises of each prompt.
        size: height and width of the scored images.
        versions: by figure, what else its number depends on: options, checkpoint, files.
        note: in words, for reported rows: what the paper did.
    """

    prompts: str
    digest: str = ""
    count: int = 0
    seeds: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)
    versions: dict[str, str] = Field(default_factory=dict)
    note: str = ""

    def comparable(self, other: EvaluationProtocol) -> bool:
        """Whether the same prompts, seeds and image size were used; a protocol known in words alone never is."""
        return bool(self.digest) and (self.digest, self.seeds, self.size) == (other.digest, other.seeds, other.size)


class Picture(_Part):
    """A small picture: prompt, seed, and a `data:` address of a PNG or WebP."""

    prompt: str
    seed: int
    category: str = ""
    data: str


class Subject(_Part):
    """What made the images.

    Attributes:
        label: what the row is called.
        name: what was named on the command line.
        evaluations: network passes an image; None where it is not known.
        settings: steps, guidance and other options.
        fingerprint: SHA-256 of the weights.
        trained_on: rewards that it was trained on.
        started_from: label or name of what its training started from.
        is_reference: whether it is a multi-step reference diffusion.
    """

    label: str
    name: str = ""
    evaluations: int | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    fingerprint: str = ""
    trained_on: tuple[str, ...] = ()
    started_from: str = ""
    is_reference: bool = False


class Row(_Part):
    """A row of the leaderboard.

    Attributes:
        kind: `measured` by `dipp bench`, or `reported` by a paper.
        subject: what made the images.
        protocol: prompts, seeds and sizes.
        figures: by name.
        baseline: label of the row that warnings compare with; empty where there is none.
        warnings: what the monitors say.
        notes: what a reader of the figures has to know, from metrics themselves.
        pictures: a few, for the same prompts and seeds in every row of a bench.
        command: what to type to measure this row again.
        environment: versions of programs, the machine, the date.
        intervals: how intervals of figures with a value a prompt were made; where a row does not say so, by bootstrap.
        source: of a reported row: paper and table.
    """

    schema_version: int = SCHEMA
    kind: Literal["measured", "reported"] = "measured"
    subject: Subject
    protocol: EvaluationProtocol
    figures: dict[str, Figure]
    baseline: str = ""
    warnings: tuple[Warned, ...] = ()
    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    command: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
    intervals: Intervals = BOOTSTRAP
    source: str = ""

    @property
    def label(self) -> str:
        return self.subject.label


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSON lines file.

    Raises:
        RequestError: the file is missing, or a line is not a row; the message names file, line and field.
    """
    try:
        lines = list(numbered_lines(read_bytes(path, MOST_BYTES).decode("utf-8-sig")))
    except OSError as error:
        raise RequestError(f"Cannot read the results {path}: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise RequestError(f"The results {path} are not UTF-8 text; expected what dipp bench writes.") from None
    rows = []
    for number, line in lines:
        try:
            rows.append(Row.model_validate(parse_untrusted(line)))
        except ValidationError as error:
            raise RequestError(f"{path}, line {number}, is not a row of a leaderboard: {mistake_in(error)}.") from error
        except RecursionError:
            raise RequestError(
                f"{path}, line {number}, is not a row of a leaderboard: it is nested too deeply."
            ) from None
        except ValueError as error:
            raise RequestError(f"{path}, line {number}, is not valid JSON: {first_line(error)}.") from error
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, one a line; the file appears whole or not at all."""
    from ...utils.atomic import write_text

    text = "".join(json.dumps(row.model_dump(mode="json"), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def figure_names(rows: Sequence[Row], role: str | None = None) -> list[str]:
    """Names of all figures, in the order in which they are met."""
    names: Mapping[str, None] = dict.fromkeys(
        name for row in rows for name, figure in row.figures.items() if role is None or figure.role == role
    )
    return list(names)
