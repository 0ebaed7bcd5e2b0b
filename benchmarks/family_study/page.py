"""Tables and figures of the study, from its recorded rows alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.family_study.cells import PLAN
from benchmarks.family_study.objectives import OBJECTIVES, PACE, UPDATES
from dipp_toolkit.evaluation.intervals import Interval, mean_interval, paired_interval
from dipp_toolkit.experiments.bench.rows import Row
from dipp_toolkit.report.charts.scatter import Point, scatter
from dipp_toolkit.utils.atomic import write_text

JUDGE, REWARD, DISTANCE, DIVERSITY = "emoji-judge", "emoji-preference", "emoji-frechet", "diversity"
REFERENCE, START = "emoji-reference", "emoji-onestep"
OFF_SCALE = 40.0
"""Frechet distances beyond are in the table and not in the figure, which would shrink to a line."""
SHORT = {"f-divergence": "f-div", "policy gradient": "policy"}
"""Names in the figure, where points are close."""
STYLE = (
    "svg{background:#fff;font:12px system-ui,sans-serif;fill:#1d2430}.grid{stroke:#e2e6ec}"
    ".front{fill:none;stroke:#8a94a6;stroke-dasharray:4 3}.dot{fill:#3b6fd4;stroke:#fff}"
    ".dot.on-front{stroke:#1d2430;stroke-width:1.5}.mark{fill:#c2571a}.leader{stroke:#8a94a6}.axis{fill:#5b6675}"
)


@dataclass(frozen=True)
class Group:
    """The runs of one objective under one budget, or a row that was not trained here.

    Attributes:
        name: of the objective.
        rows: one a run.
        updates: of each; 0 for what was not trained here.
    """

    name: str
    rows: Sequence[Row]
    updates: int = 0

    def per_prompt(self, figure: str) -> Tensor:
        """Means over noises and runs, prompt by prompt."""
        return torch.tensor([row.figures[figure].per_prompt for row in self.rows], dtype=torch.float64).mean(0)

    def interval(self, figure: str) -> Interval:
        """The mean over prompts, noises and runs, with its 95 % interval over prompts."""
        return mean_interval(self.per_prompt(figure))

    def means(self, figure: str) -> list[float]:
        """One number a run."""
        return [row.figures[figure].mean for row in self.rows]

    def mean(self, figure: str) -> float:
        """Mean over runs."""
        return sum(self.means(figure)) / len(self.rows)


def groups(rows: Sequence[Row], budget: str, counts: Mapping[str, int]) -> list[Group]:
    """The objectives under a budget, in the order of the study."""
    made = []
    for name in OBJECTIVES:
        # An objective that gets as many updates under both budgets was run once.
        kept = budget if counts[name] != UPDATES else "updates"
        own = [row for row in rows if re.fullmatch(rf"{kept} {re.escape(name)} seed \d+", row.label)]
        made.append(Group(name, own, counts[name]))
    return [group for group in made if group.rows]


def _spread(values: Sequence[float], digits: int) -> str:
    mean = f"{sum(values) / len(values):.{digits}f}"
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else mean


def _interval_text(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def table(shown: Sequence[Group], reference: Group) -> str:
    """A row a group."""
    lines = [
        "| objective | updates | judge | judge, lowest and highest run | judge over the reference "
        f"| {REWARD} (trained) | Frechet distance | diversity |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for group in shown:
        runs = group.means(JUDGE)
        over = "-"
        if group is not reference:
            over = _interval_text(paired_interval(reference.per_prompt(JUDGE), group.per_prompt(JUDGE)))
        cells = [
            group.name,
            str(group.updates or "-"),
            _interval_text(group.interval(JUDGE)),
            f"{min(runs):.2f}, {max(runs):.2f}" if len(runs) > 1 else "-",
            over,
            _spread(group.means(REWARD), 2),
            _spread(group.means(DISTANCE), 2),
            _spread(group.means(DIVERSITY), 3),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def figure(shown: Sequence[Group], compared: Sequence[Group]) -> str:
    """Judge against Frechet distance, with the Pareto front of what was trained, as an SVG file of its own."""
    points = [
        Point(group.name, group.mean(DISTANCE), group.mean(JUDGE), 0, label=SHORT.get(group.name, group.name))
        for group in shown
    ]
    points += [Point(group.name, group.mean(DISTANCE), group.mean(JUDGE), mark=group.name) for group in compared]
    inside = [point for point in points if point.x <= OFF_SCALE]
    drawn = str(scatter(inside, "Frechet distance (less is better)", "judge's preference", -1, 1))
    head, _, rest = drawn.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg" width="760"><style>{STYLE}</style>{rest}\n'


def write_results(rows: Sequence[Row], folder: Path) -> None:
    """Write `results.md` and the figures beside it.

    Args:
        rows: of the study's bench.
        folder: holds the plan of equal time, where that was run.
    """
    reference = Group("reference", [row for row in rows if row.label == REFERENCE])
    start = Group("start", [row for row in rows if row.label == START])
    budgets = {"updates": dict.fromkeys(OBJECTIVES, UPDATES)}
    plan = folder / PLAN
    paces: Mapping[str, float] = {}
    if plan.is_file():
        planned = json.loads(plan.read_text(encoding="utf-8"))
        budgets["time"], paces = planned["updates"], planned["seconds_per_update"]
    titles = {
        "updates": f"Equal updates: {UPDATES} of the generator",
        "time": f"Equal time: that of {UPDATES} updates of {PACE}",
    }
    parts = []
    for budget, counts in budgets.items():
        compared = groups(rows, budget, counts)
        write_text(folder / f"{budget}.svg", figure(compared, [reference, start]))
        parts += [f"**{titles[budget]}**", table([reference, start, *compared], reference)]
    if paces:
        shown = ", ".join(f"{name} {seconds:.2f}" for name, seconds in paces.items())
        parts.append(f"Seconds an update, one thread, measured turn by turn: {shown}.")
    shown = rows[0]
    parts.append(
        f"Judge: mean over runs with a 95 % interval over {shown.protocol.count} held-out prompts, "
        f"{len(shown.protocol.seeds)} noises each; over the reference: of the difference prompt by prompt. In "
        "parentheses the lowest and the highest run. Ran on "
        + ", ".join(f"{name} {value}" for name, value in shown.environment.items() if name not in ("date", "device"))
        + f", {shown.environment['device'].replace('1 threads', '1 thread')}."
    )
    write_text(folder / "results.md", "\n\n".join(parts) + "\n")
