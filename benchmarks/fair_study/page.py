"""The page of the study, from its rows alone: how much is done, what was chosen, what was reached, what can be said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.fair_study.backwards_page import backwards_section
from benchmarks.fair_study.cells import FINAL, SEARCH
from benchmarks.fair_study.claims import Runs, claims_of
from benchmarks.fair_study.figure import figure
from benchmarks.fair_study.records import Record, newest_basis
from benchmarks.fair_study.search import (
    CRITERION,
    FACTORS,
    GUIDANCES,
    PLAIN,
    PULL,
    SCALES_GUIDED,
    Search,
    Setting,
)
from benchmarks.fair_study.study import CHOICE, REPORTED, START, TEACHER, Study, study_of
from benchmarks.fair_study.words import interval_text, list_of, spread_text, table
from benchmarks.fair_study.worlds import BEST, WORLDS, World
from dipp_toolkit.evaluation.intervals import paired_interval
from dipp_toolkit.utils.atomic import write_text

PLACE = "../../benchmarks/fair_study"
"""Of the figures, from this folder and from `docs/results/` alike."""
BUDGETS = ("updates", "time")


def studies(records: Sequence[Record]) -> dict[str, Study]:
    """The study in every world, of the newest basis of its rows."""
    bases = {name: newest_basis(records, name) for name in WORLDS}
    return {name: study_of(name, world.best_of, records, bases) for name, world in WORLDS.items()}


def _count(study: Study, cells: Sequence[object]) -> int:
    return sum(getattr(cell, "id", "") in study.done for cell in cells)


def progress(study: Study) -> str:
    """What is done of each part."""
    found, count = study.searched, len(study.siblings) or BEST
    searched = (
        [study.search_cell(at) for at in found.planned]
        if found is not None
        else [None] * count * (len(FACTORS) + SCALES_GUIDED * len(GUIDANCES))
    )
    counts = study.updates_in_equal_time
    finals = {cell.id: cell for which in (study.equal_updates, counts) if which for cell in study.finals(which)}
    most = len(finals) if counts else 2 * count * len(study.seeds)
    rows = [
        ("start and teacher", _count(study, study.columns), str(len(study.columns))),
        ("anchors", _count(study, study.anchors), str(count)),
        (
            "search",
            _count(study, searched),
            str(len(searched)) if found and found.chosen else f"at least {len(searched)}",
        ),
        ("reported runs", _count(study, list(finals.values())), str(most) if counts else f"at most {most}"),
    ]
    if study.backwards:
        rows.append(("why distillation went backwards", _count(study, study.backwards), str(len(study.backwards))))
    return table(("part", "done", "of"), [(name, str(done), of) for name, done, of in rows])


def per_sibling(found: Search) -> int:
    """Runs of the search of each sibling.

    Raises:
        ValueError: they have not all the same budget.
    """
    counts = set(Counter(at.sibling for at in found.planned).values())
    if len(counts) != 1:
        raise ValueError("The siblings of a search have not all the same budget.")
    return counts.pop()


def search_section(study: Study, found: Search) -> list[str]:
    """The grid as far as it is, and what was chosen."""
    start = study.done[study.column(START, CHOICE).id].numbers["frechet"]

    def shown(at: Setting) -> str:
        outcome = study.outcome(at)
        if outcome is None:
            return "-"
        text = f"{outcome.judge:.2f}{'' if outcome.within(start) else ' out'}"
        return f"**{text}**" if found.chosen.get(at.sibling) == at else text

    rows = []
    for name in study.siblings:
        anchor = study.scale(Setting(name, 1.0, PLAIN))
        guided = [at for at in found.planned if at.sibling == name and at.guidance != PLAIN]
        extra = ", ".join(f"{at.factor:g} at {at.guidance:g}: {shown(at)}" for at in guided) or "-"
        edge = " (at the grid's edge)" if name in found.at_edge else ""
        rows.append((name + edge, f"{anchor:.4g}", *(shown(Setting(name, f, PLAIN)) for f in found.factors), extra))
    heads = (
        "sibling",
        f"scale at a pull of {PULL:g}",
        *(f"times {factor:g}" for factor in found.factors),
        "with guidance",
    )
    return [
        f"**Search**: {per_sibling(found)} runs of {study.updates} updates for each sibling. Chosen, in bold: "
        f"{CRITERION}.",
        table(heads, rows),
        "The judge's mean on the prompts and noises of the search; *out*: outside the bounds.",
    ]


def _runs(study: Study, counts: Mapping[str, int]) -> dict[str, list[Record]]:
    """The reported rows of the siblings of which all seeds are done."""
    rows = {name: study.reported(name, counts[name]) for name in study.siblings}
    return {name: own for name, own in rows.items() if len(own) == len(study.seeds)}


def _columns(study: Study) -> dict[str, list[Record]]:
    """The teacher and the start, where they are measured."""
    found = {name: study.done.get(study.column(name, REPORTED).id) for name in (TEACHER, START)}
    return {name: [row] for name, row in found.items() if row is not None}


def final_table(study: Study, counts: Mapping[str, int]) -> str:
    """A row for the teacher, the start, and each sibling of which all seeds are done."""
    columns, runs = _columns(study), _runs(study, counts)
    teacher = Runs.of(TEACHER, columns[TEACHER]) if TEACHER in columns else None
    rows = []
    for name, own in {**columns, **runs}.items():
        group, cell = Runs.of(name, own), own[0].cell
        over = "-"
        if teacher is not None and name != TEACHER:
            over = interval_text(paired_interval(teacher.scores.mean(0), group.scores.mean(0)))
        trained = name in runs
        guidance = cell.settings["guidance"] if trained else own[0].numbers.get("guidance", "-")
        rows.append(
            (
                name,
                f"{cell.settings['reward_scale']:.4g}" if trained else "-",
                f"{guidance:g}" if guidance != "-" else "-",
                str(cell.updates or "-"),
                interval_text(group.interval),
                f"{min(group.means):.2f}, {max(group.means):.2f}" if trained else "-",
                over,
                spread_text([row.numbers["reward"] for row in own], 2),
                spread_text([100 * row.numbers["naming"] for row in own], 1),
                spread_text([row.numbers["frechet"] for row in own], 2),
                spread_text([row.numbers["diversity"] for row in own], 3),
            )
        )
    heads = (
        "sibling", "scale", "guidance", "updates", "judge", "lowest and highest seed", "over the teacher",
        "emoji-preference (trained)", "named rightly, %", "Frechet distance", "diversity",
    )  # fmt: skip
    return table(heads, rows)


def final_claims(study: Study, counts: Mapping[str, int]) -> str:
    """What can be said of each pair of siblings, and of each against the teacher."""
    compared = [Runs.of(name, rows) for name, rows in {**_runs(study, counts), **_columns(study)}.items()]
    pairs = [(a.name, b.name) for k, a in enumerate(compared) for b in compared[k + 1 :]]
    pairs = [pair for pair in pairs if set(pair) != {TEACHER, START}]
    said = claims_of(compared, pairs)
    better, rest = [claim for claim in said if claim.winner], [claim for claim in said if not claim.winner]
    return list_of([claim.sentence for claim in [*better, *rest]])


def final_section(study: Study, folder: Path) -> list[str]:
    """Tables, figures and claims of the runs that are reported."""
    parts: list[str] = []
    titles = {
        "updates": f"Equal updates: {study.updates} of the generator",
        "time": f"Equal time: that of {study.updates} updates of {study.paced}",
    }
    for budget in BUDGETS:
        counts = study.equal_updates if budget == "updates" else study.updates_in_equal_time
        runs = _runs(study, counts) if counts else {}
        if not runs:
            continue
        name = f"{budget}-{study.world}.svg"
        write_text(folder / name, figure(runs, _columns(study)))
        parts += [
            f"**{titles[budget]}**",
            f"![judge against Frechet distance]({PLACE}/{name})",
            final_table(study, counts),
            final_claims(study, counts),
        ]
    pace = study.pace_cell
    if pace is not None and pace.id in study.done:
        measured = study.done[pace.id].numbers["seconds_per_update"]
        seconds = ", ".join(f"{name} {value:.2f}" for name, value in measured.items())
        parts.append(f"Processor seconds an update, one thread, measured turn by turn: {seconds}.")
    return parts


def world_section(world: World, study: Study, folder: Path) -> list[str]:
    """All that there is of a world."""
    parts = [f"### World {world.name}: `{world.generator}` held to `{world.reference}`", progress(study)]
    if world.best_of and not study.siblings:
        parts.append(f"The {BEST} best siblings of the world {world.best_of} are compared here, once they are known.")
    found = study.searched
    if found is not None:
        parts += search_section(study, found)
    if study.siblings:
        parts += final_section(study, folder)
    return [*parts, *backwards_section(study)]


def machines(records: Sequence[Record]) -> str:
    """Where trainings ran."""
    where = Counter(row.machine for row in records if row.cell.part in (SEARCH, FINAL))
    return "Trained on " + "; ".join(f"{name} ({count} runs)" for name, count in where.most_common()) + "."


def render(records: Sequence[Record], folder: Path) -> str:
    """The page; figures are written beside it.

    Args:
        records: all rows.
        folder: where figures go.
    """
    parts: list[str] = []
    for name, study in studies(records).items():
        parts += world_section(WORLDS[name], study, folder)
    if any(row.cell.part in (SEARCH, FINAL) for row in records):
        parts.append(machines(records))
    parts.append(
        "Judge: mean over runs with a 95 % interval over held-out prompts, two noises each; over the teacher: of the "
        "difference prompt by prompt. In parentheses the lowest and the highest run."
    )
    return "\n\n".join(parts) + "\n"


def write_page(records: Sequence[Record], folder: Path) -> None:
    """Write `results.md` and the figures."""
    write_text(folder / "results.md", render(records, folder))
