"""`bench`: generators and references on the same prompts and noises, by rewards, a judge and metrics."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..experiments.bench.entries import BenchEntry, parse_entries
from ..experiments.bench.paired_tests import Comparison, compare_all
from ..experiments.bench.rows import Row, figure_names
from ..experiments.bench.run import RESULTS, run_bench
from ..experiments.bench.settings import METRICS, BenchSettings
from ..utils.messages import number_text, short_name
from ..utils.paths import user_path
from ..utils.python_words import python_words
from ..utils.tables import as_table
from .parts import GivenParts
from .progress import WorkBar, is_watched


@dataclass(frozen=True, repr=False)
class BenchResult:
    """Rows of a bench, and the tests between them.

    Attributes:
        rows: one a generator, as `results.jsonl` holds them.
        folder: of the bench.
    """

    rows: Sequence[Row]
    folder: Path

    @cached_property
    def pairs(self) -> list[Comparison]:
        """Every two rows by every figure, prompt by prompt; `pair.sentence()` says what was found."""
        return compare_all(self.rows)

    @property
    def path(self) -> Path:
        """The file of the rows, for `dipp leaderboard`."""
        return self.folder / RESULTS

    @cached_property
    def table(self) -> Any:
        """Means with the ends of their 95 % intervals: a `pandas.DataFrame`, or without pandas a list of mappings."""
        return as_table(
            [
                {"generator": row.label, "figure": name, "mean": figure.mean, "low": figure.low, "high": figure.high}
                | {"role": figure.role}
                for row in self.rows
                for name, figure in row.figures.items()
            ]
        )

    @property
    def warnings(self) -> list[str]:
        """What is wrong with a row, sentences."""
        return [f"{row.label}: {warning.text}" for row in self.rows for warning in row.warnings]

    def __repr__(self) -> str:
        names = figure_names(self.rows, "judge") or figure_names(self.rows, "reward")
        parts = [
            f"{row.label} {number_text(row.figures[name].mean)}"
            for name in names[:1]
            for row in self.rows
            if name in row.figures
        ]
        shown = f"; {short_name(names[0])}: {', '.join(parts)}" if parts else ""
        return f"<BenchResult {str(self.folder)!r}, {len(self.rows)} rows{shown}>"

    def _repr_html_(self) -> str:
        names = figure_names(self.rows)
        head = "".join(f"<th>{html.escape(row.label)}</th>" for row in self.rows)
        lines = []
        for name in names:
            cells = "".join(f"<td>{_cell(row, name)}</td>" for row in self.rows)
            lines.append(f"<tr><td>{html.escape(short_name(name))}</td>{cells}</tr>")
        return f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"


def _cell(row: Row, name: str) -> str:
    figure = row.figures.get(name)
    if figure is None:
        return "-"
    if figure.low is None or figure.high is None:
        return number_text(figure.mean, ".4g")
    return f"{number_text(figure.mean, '.4g')} ({number_text(figure.low, '.4g')} to {number_text(figure.high, '.4g')})"


def bench(
    generators: Any,
    prompts: Any = "emoji-heldout",
    *,
    rewards: Any = (),
    judge: Any = (),
    metrics: str | Sequence[str] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: int | Sequence[int] = 2,
    count: int | None = None,
    out: str | Path = "bench",
    batch_size: int = 32,
    pictures: int = 8,
    device: str = "auto",
    progress: bool = True,
) -> BenchResult:
    """Measure generators on the same prompts and noises, as `dipp bench` does.

        >>> found = bench({"before": "emoji-onestep"}, count=2, rewards=lambda images: images.mean((1, 2, 3)), seeds=1)
        >>> len(found.rows)
        1

    Args:
        generators: names, folders, `diffusers` pipelines, finished `RunResult`s or generator objects, in a list or by
            the label of their row.
        prompts: a name, a path, a list of texts, a `datasets.Dataset`, or what `load_prompts` returns.
        rewards: names or callables, in a list or by name.
        judge: rewards that judge, which nothing was trained on; the same.
        metrics: names of metrics beside those that are always measured.
        options: by label of a generator, or by name of a reward or a metric: `{"before": {"reference": ...}}`.
        seeds: noises of every prompt: how many, or which.
        count: only so many of the prompts, a seeded sample.
        out: the bench's folder. Images and scores that are there already are not made again.
        batch_size: images at a time.
        pictures: prompts whose pictures go into the rows.
        device: as in the settings.
        progress: show bars, in a notebook or a terminal.

    Raises:
        RequestError: something given cannot be used.
        RunError: a reward or metric failed, or a file cannot be written.
    """
    with python_words():
        objects, given = GivenParts(), dict(options or {})
        entries = _entries(objects, generators, given)
        own = {name: value for name, value in given.items() if name not in {entry.label for entry in entries}}
        named_prompts = objects.prompts(prompts)
        if count is not None:
            named_prompts += f"{'&' if '?' in named_prompts else '?'}count={count}"
        settings = BenchSettings(
            entries=tuple(entries),
            prompts=named_prompts,
            rewards=objects.rewards_named(rewards),
            judges=objects.rewards_named(judge),
            metrics=tuple(dict.fromkeys((*METRICS, *([metrics] if isinstance(metrics, str) else metrics)))),
            options=own,
            seeds=tuple(range(1, seeds + 1)) if isinstance(seeds, int) else tuple(seeds),
            out=user_path(out),
            batch=batch_size,
            device=device,
            pictures=pictures,
        )
        with objects.lent():
            for entry in settings.entries:
                entry.check()
            with WorkBar() if progress and is_watched() else nullcontext() as listener:
                rows = run_bench(settings, listener)
        return BenchResult(rows, settings.out)


def _entries(objects: GivenParts, generators: Any, options: Mapping[str, Mapping[str, Any]]) -> list[BenchEntry]:
    """Generators under the labels of their rows.

    Raises:
        RequestError: there is none, two have one label, or an option is no generator's.
    """
    if isinstance(generators, str):
        return parse_entries(generators, {})
    if isinstance(generators, Mapping):
        pairs = list(generators.items())
    else:
        listed = generators if isinstance(generators, list | tuple) else [generators]
        pairs = [("", one) for one in listed]
    entries: list[BenchEntry] = []
    for label, one in pairs:
        name = _named(objects, one)
        shown = label or _label(one, name)
        if shown in {entry.label for entry in entries}:
            raise RequestError(f"Two generators are called '{shown}'; give them labels: bench({{'a': ..., 'b': ...}}).")
        own = {key: objects.reference(value) if key == "reference" else value for key, value in _own(options, shown)}
        entries.append(BenchEntry(shown, name, own))
    if not entries:
        raise RequestError("No generator is given; expected names or objects, as in bench(['emoji-onestep']).")
    return entries


def _own(options: Mapping[str, Mapping[str, Any]], label: str) -> list[tuple[str, Any]]:
    return list(options.get(label, {}).items())


def _named(objects: GivenParts, one: Any) -> str:
    """A generator's or a reference's name."""
    if hasattr(one, "denoiser") and hasattr(one, "sample"):
        return objects.reference(one)
    return objects.generator(one)


def _label(given: Any, name: str) -> str:
    if isinstance(given, str) and not Path(given).exists():
        return given
    path = Path(name)
    return path.parent.name if path.name == "final" else path.name
