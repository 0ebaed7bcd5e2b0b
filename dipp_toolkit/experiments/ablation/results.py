"""An ablation's numbers: every combination of settings with its figures, the seeds put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..bench.rows import Figure, Picture, Row, figure_names
from .grid import SEED, Cell

LATER = ("diversity", "saturation", "contrast", "clipped")


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds of one combination.

    Attributes:
        mean: over the seeds.
        low: the lowest seed's, or with one seed the lower end of its interval.
        high: the highest seed's, or the upper end.
        seeds: how many.
    """

    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Combination:
    """One combination of settings.

    Attributes:
        values: by setting, the seed left out.
        rows: one a seed.
        figures: by name.
        warnings: names of the warnings that any of its rows has.
    """

    values: Mapping[str, str]
    rows: Sequence[Row]
    figures: Mapping[str, Spread]

    @property
    def label(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.values.items())

    @property
    def warnings(self) -> list[str]:
        return list(dict.fromkeys(warning.name for row in self.rows for warning in row.warnings))

    @property
    def pictures(self) -> Sequence[Picture]:
        return self.rows[0].pictures


@dataclass(frozen=True)
class Study:
    """All combinations, and the rows that they are compared with.

    Attributes:
        combinations: in the grid's order.
        cells: label of each trained cell with its row.
        others: the start, the reference: rows that are not cells.
        settings: what varies, the seed left out, with its values in order.
    """

    combinations: Sequence[Combination]
    cells: Mapping[str, tuple[Cell, Row]]
    others: Sequence[Row]
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        return [row for _, row in self.cells.values()]

    def figures(self, *roles: str) -> list[str]:
        """Names of the figures with these roles."""
        return [name for name in figure_names(self.rows) if not roles or self.figure(name).role in roles]

    def figure(self, name: str) -> Figure:
        """Any row's figure of this name: which way is better, and its role."""
        return next(row.figures[name] for row in self.rows if name in row.figures)

    def rewards(self) -> list[str]:
        """Rewards and judges, then other figures of which more is better for sure."""
        return self.figures("reward", "judge")

    def fidelity(self) -> list[str]:
        """Distances to real images or to the reference: metrics of which less is better."""
        lower = [name for name in self.figures("metric") if self.figure(name).better == "lower"]
        return [name for name in lower if name not in LATER]


def make_study(cells: Sequence[Cell], rows: Sequence[Row]) -> Study:
    """Put rows and cells together by label.

    Args:
        cells: in the grid's order; those without a row (their training failed) are left out.
        rows: of the cells and of others.
    """
    by_label = {row.label: row for row in rows}
    trained = {cell.label: (cell, by_label[cell.label]) for cell in cells if cell.label in by_label}
    groups: dict[tuple[tuple[str, str], ...], list[Row]] = defaultdict(list)
    for cell, row in trained.values():
        groups[cell.without_seed()].append(row)
    combinations = [Combination(dict(values), members, _spreads(members)) for values, members in groups.items()]
    settings: dict[str, list[str]] = {}
    for cell, _ in trained.values():
        for name, value in cell.without_seed():
            values = settings.setdefault(name, [])
            if value not in values:
                values.append(value)
    return Study(combinations, trained, [row for row in rows if row.label not in trained], settings)


def _spreads(rows: Sequence[Row]) -> dict[str, Spread]:
    spreads = {}
    for name in figure_names(rows):
        figures = [row.figures[name] for row in rows if name in row.figures]
        means = [figure.mean for figure in figures]
        if len(figures) == 1:
            figure = figures[0]
            low, high = (figure.mean if end is None else end for end in (figure.low, figure.high))
        else:
            low, high = min(means), max(means)
        spreads[name] = Spread(sum(means) / len(means), low, high, len(means))
    return spreads


__all__ = ["SEED", "Combination", "Spread", "Study", "make_study"]
