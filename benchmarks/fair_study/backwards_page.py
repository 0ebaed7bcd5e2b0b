"""Why distillation went backwards at guidance 1: its table, and what can be said of each suspect."""

from __future__ import annotations

from itertools import product

from benchmarks.fair_study.claims import Claim, Runs, claims_of
from benchmarks.fair_study.records import Record
from benchmarks.fair_study.study import (
    ASSISTANTS,
    BACKWARDS_GUIDANCES,
    FROM_REFERENCE,
    RATES,
    REPORTED,
    SAVED,
    START,
    Study,
)
from benchmarks.fair_study.words import interval_text, list_of, spread_text, table

Suspects = tuple[str, float, float]
"""Assistant, guidance, and what the learning rate is multiplied by."""
WORDS = {SAVED: "as saved with the start", FROM_REFERENCE: "a copy of the reference"}
NAMES = ("assistant", "guidance", "learning rate, times")


def name_of(suspect: int, level: str | float) -> str:
    """A suspect at one of its levels, in words."""
    if suspect == 0:
        return f"an assistant {WORDS[str(level)]}"
    return f"{'guidance' if suspect == 1 else 'a learning rate times'} {level:g}"


def _done(study: Study) -> dict[Suspects, list[Record]]:
    """The rows of every cell of which all seeds are done."""
    rows: dict[Suspects, list[Record]] = {}
    for at in product(ASSISTANTS, BACKWARDS_GUIDANCES, RATES):
        cells = [study.backwards_cell(*at, seed) for seed in study.seeds]
        own = [study.done[cell.id] for cell in cells if cell.id in study.done]
        if len(own) == len(study.seeds):
            rows[at] = own
    return rows


def suspects_compared(rows: dict[Suspects, list[Record]]) -> list[Claim]:
    """Each suspect's levels against each other, the other two suspects averaged over; those that are wholly done."""
    pooled, pairs = [], []
    for suspect, levels in enumerate((ASSISTANTS, BACKWARDS_GUIDANCES, RATES)):
        groups = {level: [own for at, own in rows.items() if at[suspect] == level] for level in levels}
        whole = len(ASSISTANTS) * len(BACKWARDS_GUIDANCES) * len(RATES) // len(levels)
        if any(len(group) != whole for group in groups.values()):
            continue
        pooled += [Runs.pooled(name_of(suspect, level), group) for level, group in groups.items()]
        first = levels[0]
        pairs += [(name_of(suspect, first), name_of(suspect, level)) for level in levels[1:]]
    return claims_of(pooled, pairs) if pairs else []


def backwards_section(study: Study) -> list[str]:
    """Table and claims; nothing where no cell is done."""
    rows, start = _done(study), study.done.get(study.column(START, REPORTED).id)
    if not rows or start is None:
        return []
    begun = Runs.of(START, [start])
    groups = {at: Runs.of(f"{WORDS[at[0]]}, guidance {at[1]:g}, times {at[2]:g}", own) for at, own in rows.items()}
    against = claims_of([begun, *groups.values()], [(START, group.name) for group in groups.values()])
    lines = []
    for (at, group), claim in zip(groups.items(), against, strict=True):
        own = rows[at]
        went = "-" if not claim.winner else "backwards" if claim.winner == START else "forwards"
        lines.append(
            (
                WORDS[at[0]],
                f"{at[1]:g}",
                f"{at[2]:g}",
                interval_text(group.interval),
                f"{min(group.means):.2f}, {max(group.means):.2f}",
                went,
                spread_text([row.numbers["frechet"] for row in own], 2),
                spread_text([row.numbers["diversity"] for row in own], 3),
            )
        )
    heads = (*NAMES, "judge", "lowest and highest seed", "from the start it went", "Frechet distance", "diversity")
    parts = [
        f"**Why did distillation go backwards?** {study.updates} updates without rewards from the start, whose judge "
        f"is {interval_text(begun.interval)} and whose Frechet distance is {start.numbers['frechet']:.2f}.",
        table(heads, lines),
    ]
    said = suspects_compared(rows)
    return [*parts, list_of([claim.sentence for claim in said])] if said else parts
