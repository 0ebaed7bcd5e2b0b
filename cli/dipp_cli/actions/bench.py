"""What `dipp bench` does: measure generators on the same prompts and seeds, and show how they compare."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.bench.entries import parse_entries
from dipp_toolkit.experiments.bench.paired_tests import Comparison, compare_all
from dipp_toolkit.experiments.bench.rows import Row, figure_names
from dipp_toolkit.experiments.bench.run import RESULTS, run_bench
from dipp_toolkit.experiments.bench.settings import METRICS, BenchSettings
from dipp_toolkit.prompts.subsets import counted_prompts
from dipp_toolkit.utils.assignments import parse_names, parse_options
from dipp_toolkit.utils.atomic import write_text
from dipp_toolkit.utils.messages import Spelling, number_text
from dipp_toolkit.utils.paths import user_path

from ..terminal.output import plain_line, print_line
from ..terminal.work_progress import bench_progress

PAIRS = "pairs.json"


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """The words of the command line."""

    generators: str
    prompts: str
    rewards: str
    judge: str
    metrics: str
    seeds: int
    count: int | None
    category: str | None
    seed: int
    out: Path
    images: Path | None
    pictures: int
    batch_size: int
    assignments: list[str]
    device: str
    quiet: bool

    @property
    def prompt_set(self) -> str:
        """The prompts with their sub-set, as `load_prompts` reads it."""
        query = {"category": self.category, "count": self.count, "seed": self.seed if self.count else None}
        text = "&".join(f"{name}={value}" for name, value in query.items() if value is not None)
        return f"{self.prompts}{'&' if '?' in self.prompts else '?'}{text}" if text else self.prompts

    def settings(self) -> BenchSettings:
        """What the toolkit is asked for.

        Raises:
            RequestError: a number is out of range or a name is unknown.
        """
        if self.seeds < 1:
            raise RequestError(f"--seeds is {self.seeds}; expected at least 1.")
        if self.count is not None and self.count < 1:
            raise RequestError(f"--count is {self.count}; expected at least 1.")
        if self.pictures < 0:
            raise RequestError(f"--pictures is {self.pictures}; expected 0 or more.")
        options = parse_options(self.assignments, ("reward", "metric", "generator"))
        return BenchSettings(
            entries=tuple(parse_entries(self.generators, options["generator"])),
            prompts=self.prompt_set,
            rewards=parse_names(self.rewards),
            judges=parse_names(self.judge),
            metrics=(*METRICS, *(name for name in parse_names(self.metrics) if name not in METRICS)),
            options={**options["reward"], **options["metric"]},
            seeds=tuple(range(1, self.seeds + 1)),
            out=user_path(self.out),
            images=user_path(self.images) if self.images is not None else None,
            batch=self.batch_size,
            device=self.device,
            pictures=self.pictures,
            command=self.command(),
        )

    def command(self) -> str:
        """What to type for the same results, without what decides only where they go."""
        words: list[str] = ["dipp", "bench", "--generators", self.generators, "--prompts", self.prompts]
        for flag, value in (("--rewards", self.rewards), ("--judge", self.judge), ("--metrics", self.metrics)):
            words += [flag, value] if value else []
        words += ["--seeds", str(self.seeds)]
        words += ["--category", self.category] if self.category else []
        words += ["--count", str(self.count), "--seed", str(self.seed)] if self.count else []
        for assignment in self.assignments:
            words += ["--set", assignment]
        return shlex.join(words)


@dataclass(frozen=True)
class Result:
    """Rows, the tests between them, and where the rows are."""

    rows: Sequence[Row]
    pairs: Sequence[Comparison]
    path: Path

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pictures and the values of single prompts."""
        rows = [row.model_dump(mode="json", exclude={"pictures"}) for row in self.rows]
        for row in rows:
            for figure in row["figures"].values():
                figure.pop("per_prompt")
        return {"results": str(self.path), "rows": rows, "pairs": [pair.as_dict() for pair in self.pairs]}


def measure(request: BenchRequest) -> Result | None:
    """Run the bench; None in a process that only helped.

    Raises:
        DippError: as `run_bench` does.
    """
    import json

    settings = request.settings()
    with bench_progress(request.quiet) as listener:
        rows = run_bench(settings, listener)
    if not rows:
        return None
    pairs = compare_all(rows)
    write_text(settings.out / PAIRS, json.dumps([pair.as_dict() for pair in pairs], indent=1) + "\n")
    return Result(rows, pairs, settings.out / RESULTS)


def describe(result: Result) -> None:
    """Print the table, the tests that found a difference, warnings, and where the files are."""
    from rich.table import Table

    from ..terminal.tables import console, interval, show

    rows, protocol = result.rows, result.rows[0].protocol
    spelling = Spelling(figure_names(rows))
    table = Table(title=f"{counted_prompts(protocol.count, protocol.prompts)}, means with 95 % intervals")
    table.add_column("", overflow="fold")
    for row in rows:
        table.add_column(plain_line(row.label))
    between = "\n" if console().width < 60 + 26 * len(rows) else " "
    for name in figure_names(rows):
        role = next(row.figures[name].role for row in rows if name in row.figures)
        cells = []
        for row in rows:
            figure = row.figures.get(name)
            cells.append(
                "-"
                if figure is None
                else number_text(figure.mean, ".4g")
                if figure.low is None
                else interval({"mean": figure.mean, "low": figure.low, "high": figure.high or 0.0}, between)
            )
        table.add_row(spelling.name(name) + (" (judge)" if role == "judge" else ""), *cells)
    show(table)
    # Without anything that scores, what tells rows apart are the metrics that have a better side.
    scored = figure_names(rows, "reward") + figure_names(rows, "judge")
    tested = scored or [name for name in figure_names(rows, "metric") if rows[0].figures[name].better]
    for pair in result.pairs:
        if pair.figure in tested:
            print_line(spelling.text(pair.sentence()))
    for row in rows:
        for warning in row.warnings:
            print_line(f"Warning, {row.label}: {spelling.text(warning.text)}")
    for note in dict.fromkeys(note for row in rows for note in row.notes):
        print_line(f"Note: {note}")
    print_line(f"{result.path}  rows, for: dipp leaderboard {result.path}")
