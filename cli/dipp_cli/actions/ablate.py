"""What `dipp ablate` does: train and measure the cells, and show what the settings do."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.ablation.best_cell import parse_constraint
from dipp_toolkit.experiments.ablation.grid import SEED, Cell, grid, make_cell, parse_vary, read_cells
from dipp_toolkit.experiments.ablation.run import AblationResult, ablate
from dipp_toolkit.experiments.ablation.settings import AblationSettings
from dipp_toolkit.experiments.ablation.trends import claims
from dipp_toolkit.experiments.bench.run import RESULTS
from dipp_toolkit.utils.assignments import parse_names, parse_options
from dipp_toolkit.utils.messages import Spelling, number_text
from dipp_toolkit.utils.paths import user_path

from ..terminal.output import print_line
from ..terminal.work_progress import bench_progress


@dataclass(frozen=True, kw_only=True)
class AblateRequest:
    """The words of the command line."""

    vary: list[str]
    cells: Path | None
    seeds: int | None
    base: TrainConfig
    rewards: str
    metrics: str
    noises: int
    count: int | None
    best: str | None
    subject_to: list[str]
    out: Path
    quiet: bool
    metric_options: Sequence[str] = ()

    def all_cells(self) -> list[Cell]:
        """The grid, or the list, with every seed.

        Raises:
            RequestError: nothing varies, or seeds are named twice.
        """
        if bool(self.vary) == (self.cells is not None):
            raise RequestError("Name what varies: either --vary NAME=VALUE,... or a list with --cells FILE.")
        varied = parse_vary(self.vary)
        cells = read_cells(user_path(self.cells)) if self.cells is not None else grid(varied)
        if self.seeds is None:
            return cells
        if self.seeds < 1:
            raise RequestError(f"--seeds is {self.seeds}; expected at least 1.")
        if any(SEED in cell.values for cell in cells):
            raise RequestError("The seed varies twice: by --seeds and by --vary or --cells. Give it once.")
        return [make_cell({**cell.values, SEED: str(seed)}) for cell in cells for seed in range(self.seeds)]

    def settings(self) -> AblationSettings:
        """What the toolkit is asked for.

        Raises:
            RequestError: a number is out of range or a constraint is invalid.
        """
        for flag, value in (("--noises", self.noises), ("--count", self.count)):
            if value is not None and value < 1:
                raise RequestError(f"{flag} is {value}; expected at least 1.")
        return AblationSettings(
            cells=self.all_cells(),
            base=self.base,
            out=user_path(self.out),
            rewards=parse_names(self.rewards),
            metrics=parse_names(self.metrics),
            options=parse_options(list(self.metric_options), ("metric",))["metric"],
            count=self.count,
            seeds=tuple(range(1, self.noises + 1)),
            best=self.best,
            constraints=tuple(parse_constraint(text) for text in self.subject_to),
            command=shlex.join(["dipp", *sys.argv[1:]]),
        )


def measure(request: AblateRequest) -> AblationResult | None:
    """Run the ablation; None in a process that only helped.

    Raises:
        DippError: as `ablate` does.
    """
    settings = request.settings()
    with cell_progress(request.quiet) as listener:
        return ablate(settings, listener)


class _CellLines:
    """Says on stderr which cell is at work, and passes the bench's progress on."""

    def __init__(self, inner: Any, quiet: bool):
        self.inner, self.quiet = inner, quiet

    def cell(self, cell: Cell, number: int, total: int, state: str) -> None:
        if not self.quiet:
            print_line(f"[{number}/{total}] {cell.label}: {state}", file=sys.stderr)

    def begin(self, what: str, total: int) -> None:
        self.inner.begin(what, total)

    def advance(self, count: int) -> None:
        self.inner.advance(count)


@contextmanager
def cell_progress(quiet: bool) -> Iterator[_CellLines]:
    """Progress of cells and bench on stderr."""
    with bench_progress(quiet) as inner:
        yield _CellLines(inner, quiet)


def describe(result: AblationResult, as_text: bool = True) -> dict[str, Any]:
    """Print the table of combinations, the claims and the choice; or return them for JSON."""
    study = result.study
    answer = {
        "page": str(result.page),
        "results": str(result.page.with_name(RESULTS)),
        "combinations": [
            {
                "settings": dict(combination.values),
                "figures": {name: asdict(spread) for name, spread in combination.figures.items()},
                "warnings": combination.warnings,
            }
            for combination in study.combinations
        ],
        "claims": [asdict(claim) for claim in claims(study)],
        "best": {"settings": dict(result.choice.best.values)} if result.choice.best else None,
        "leading": {"settings": dict(result.choice.leading.values)} if result.choice.leading else None,
        "level_with": [{"settings": dict(combination.values)} for combination in result.choice.level_with],
        "failed": dict(result.failed),
    }
    if as_text:
        _print(result)
    return answer


def _print(result: AblationResult) -> None:
    from rich.table import Table

    from ..terminal.tables import show

    study = result.study
    figures = study.figures("reward", "judge", "metric")
    spelling = Spelling(figures)
    table = Table(title="Means over seeds")
    for name in (*study.settings, *map(spelling.name, figures), "warnings"):
        table.add_column(name)
    for row in study.combinations:
        cells = [number_text(row.figures[name].mean, ".4g") if name in row.figures else "-" for name in figures]
        table.add_row(*map(spelling.text, row.values.values()), *cells, ", ".join(row.warnings))
    show(table)
    for claim in claims(study):
        print_line(spelling.text(f"{claim.verdict}: {claim.expectation} {claim.numbers} [{claim.source}]"))
    for label, reason in result.failed.items():
        print_line(f"Failed: {label}: {reason}")
    print_line(spelling.text(result.choice.sentence()))
    print_line(f"{result.page}  heat maps, Pareto fronts, pictures")
