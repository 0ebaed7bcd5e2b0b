"""The plan of the study in one world: which cells there are, and which can be done now, from the rows so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from benchmarks.fair_study.cells import ANCHOR, BACKWARDS, COLUMN, FINAL, PACE, SEARCH, Cell
from benchmarks.fair_study.objectives import PACE as PACED
from benchmarks.fair_study.objectives import SHARED, SIBLINGS, UPDATES
from benchmarks.fair_study.records import Record
from benchmarks.fair_study.search import Outcome, Search, Setting, search
from benchmarks.fair_study.worlds import BEST, WORLDS

START, TEACHER = "start", "teacher"
CHOICE, REPORTED = "choice", "reported"
SEEDS = (0, 1, 2)
SEARCH_SEED = 100
"""Another than those that are reported."""
SAVED, FROM_REFERENCE = "saved", "reference"
ASSISTANTS = (SAVED, FROM_REFERENCE)
BACKWARDS_GUIDANCES = (1.0, 1.5)
"""None, and what the start was distilled under last."""
RATES = (1.0, 0.25)
"""Of the generator's learning rate; the assistant's stays, so that a quarter also lets it follow more closely."""


@dataclass(frozen=True)
class Stage:
    """Cells that can be done side by side, in any order.

    Attributes:
        part: which they belong to.
        cells: done ones included, so that a share of them is the same on every machine while any is missing.
    """

    part: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Study:
    """The study in one world.

    Attributes:
        world: its name.
        siblings: those that are compared.
        done: rows of one basis by their cells' ids.
        updates: of every run but those under equal time.
        seeds: of the runs that are reported.
    """

    world: str
    siblings: tuple[str, ...]
    done: Mapping[str, Record]
    updates: int = UPDATES
    seeds: tuple[int, ...] = SEEDS

    def column(self, name: str, sitting: str) -> Cell:
        """The cell of images that were not trained here."""
        return Cell.of(self.world, COLUMN, name, sitting=sitting)

    @property
    def columns(self) -> tuple[Cell, ...]:
        return (self.column(START, CHOICE), self.column(START, REPORTED), self.column(TEACHER, REPORTED))

    @property
    def anchors(self) -> tuple[Cell, ...]:
        return tuple(Cell.of(self.world, ANCHOR, name) for name in self.siblings)

    def scale(self, at: Setting) -> float | None:
        """A setting's `reward_scale`, to 4 digits; None until the sibling's anchor is known."""
        anchor = self.done.get(Cell.of(self.world, ANCHOR, at.sibling).id)
        return None if anchor is None else float(f"{anchor.numbers['reward_scale'] * at.factor:.4g}")

    def settings(self, at: Setting) -> dict[str, Any]:
        """What a run with this setting has beside what all share."""
        return {**SIBLINGS[at.sibling], "reward_scale": self.scale(at), "guidance": at.guidance}

    def search_cell(self, at: Setting) -> Cell:
        """The run of the search that tries a setting."""
        return Cell.of(self.world, SEARCH, at.sibling, SEARCH_SEED, self.updates, **self.settings(at))

    def outcome(self, at: Setting) -> Outcome | None:
        """What it reached; None until it is done."""
        row = self.done.get(self.search_cell(at).id)
        return None if row is None else Outcome(row.numbers["judge"][0], row.numbers["naming"], row.numbers["frechet"])

    @property
    def ready_to_search(self) -> bool:
        """Whether the anchors and the start's numbers are known."""
        return all(cell.id in self.done for cell in (*self.anchors, self.column(START, CHOICE)))

    @cached_property
    def searched(self) -> Search | None:
        """How far the search is; None before it can begin, and where it is not known whose it is."""
        if not self.siblings or not self.ready_to_search:
            return None
        start = self.done[self.column(START, CHOICE).id].numbers["frechet"]
        return search(self.siblings, Outcomes(self), start)

    def final_cell(self, sibling: str, seed: int, updates: int) -> Cell | None:
        """A run that is reported; None until the sibling's setting is chosen."""
        found = self.searched
        at = None if found is None else found.chosen.get(sibling)
        return None if at is None else Cell.of(self.world, FINAL, sibling, seed, updates, **self.settings(at))

    @property
    def pace_cell(self) -> Cell | None:
        """The measurement of an update's time; None until all settings are chosen."""
        found = self.searched
        if found is None or not found.chosen:
            return None
        chosen = {name: sorted(self.settings(at).items()) for name, at in found.chosen.items()}
        return Cell.of(
            self.world, PACE, "an update", **{name: [list(pair) for pair in own] for name, own in chosen.items()}
        )

    @property
    def updates_in_equal_time(self) -> dict[str, int]:
        """How many updates of each sibling take the time of `updates` of `PACED`, or of the first where that is not
        compared; empty until measured."""
        cell = self.pace_cell
        row = None if cell is None else self.done.get(cell.id)
        if row is None:
            return {}
        pace = row.numbers["seconds_per_update"]
        time = pace[self.paced] * self.updates
        return {name: max(round(time / pace[name]), 1) for name in self.siblings}

    @property
    def paced(self) -> str:
        """Whose time the others get."""
        return PACED if PACED in self.siblings else self.siblings[0]

    def reported(self, sibling: str, updates: int) -> list[Record]:
        """The rows of a sibling's runs of so many updates, by seed."""
        cells = [self.final_cell(sibling, seed, updates) for seed in self.seeds]
        return [self.done[cell.id] for cell in cells if cell is not None and cell.id in self.done]

    def finals(self, counts: Mapping[str, int]) -> tuple[Cell, ...]:
        """The runs of all siblings with so many updates each, seed by seed."""
        cells = (self.final_cell(name, seed, counts[name]) for seed, name in product(self.seeds, self.siblings))
        return tuple(cell for cell in cells if cell is not None)

    @property
    def equal_updates(self) -> dict[str, int]:
        """As many for each."""
        return dict.fromkeys(self.siblings, self.updates)

    def backwards_cell(self, assistant: str, guidance: float, rate: float, seed: int) -> Cell:
        """A distillation without rewards."""
        shared = {**SHARED, **WORLDS[self.world].settings}
        learning_rate = float(f"{shared['learning_rate'] * rate:.6g}")
        varied = {"assistant": assistant, "guidance": guidance, "learning_rate": learning_rate, "without_rewards": True}
        return Cell.of(self.world, BACKWARDS, "distillation", seed, self.updates, **varied)

    @property
    def backwards(self) -> tuple[Cell, ...]:
        """All of them, seed by seed; none where only the best of another world are compared."""
        if WORLDS[self.world].best_of:
            return ()
        every = product(self.seeds, ASSISTANTS, BACKWARDS_GUIDANCES, RATES)
        return tuple(self.backwards_cell(assistant, guidance, rate, seed) for seed, assistant, guidance, rate in every)

    @property
    def stages(self) -> list[Stage]:
        """What can be done now, in the order in which it is done."""
        stages = [Stage(COLUMN, self.columns), Stage(ANCHOR, self.anchors)]
        found = self.searched
        if found is not None:
            stages.append(Stage(SEARCH, tuple(self.search_cell(at) for at in found.stage)))
            if found.chosen:
                cell = self.pace_cell
                counts = self.updates_in_equal_time
                stages.append(Stage(FINAL, self.finals(self.equal_updates)))
                stages.append(Stage(PACE, (cell,) if cell is not None else ()))
                stages.append(Stage(FINAL, self.finals(counts) if counts else ()))
        return [*stages, Stage(BACKWARDS, self.backwards)]

    def best(self) -> tuple[str, ...] | None:
        """The siblings whose reported runs of equal updates have the highest means of the judge; None until all are
        done."""
        rows = {name: self.reported(name, self.updates) for name in self.siblings}
        if not all(len(own) == len(self.seeds) for own in rows.values()):
            return None
        means = {name: sum(row.numbers["judge"][0] for row in own) / len(own) for name, own in rows.items()}
        first = sorted(means, key=lambda name: -means[name])[:BEST]
        return tuple(name for name in self.siblings if name in first)


class Outcomes(Mapping[Setting, Outcome]):
    """The search's outcomes, looked up in the rows: a setting's cell is known only with its sibling's anchor.

    A search asks for each many times, and a cell's digest takes a while: what was looked up is kept.
    """

    def __init__(self, study: Study):
        self.study = study
        self.known: dict[Setting, Outcome | None] = {}

    def __getitem__(self, at: Setting) -> Outcome:
        if at not in self.known:
            self.known[at] = self.study.outcome(at)
        outcome = self.known[at]
        if outcome is None:
            raise KeyError(at)
        return outcome

    def __iter__(self) -> Iterator[Setting]:
        raise TypeError("The outcomes of a search are looked up, not listed.")

    def __len__(self) -> int:
        raise TypeError("The outcomes of a search are looked up, not counted.")


def study_of(
    world: str, best_of: str, records: Sequence[Record], bases: Mapping[str, str], updates: int = UPDATES
) -> Study:
    """The study in a world, from the rows of its basis; without siblings while those of another world are awaited.

    Args:
        world: its name.
        best_of: the world whose best siblings are compared; empty where all are.
        records: all rows.
        bases: whose rows count, by world.
        updates: of every run but those under equal time.
    """

    def rows(name: str) -> dict[str, Record]:
        return {row.cell.id: row for row in records if row.cell.world == name and row.basis == bases.get(name, "")}

    siblings: tuple[str, ...] | None = tuple(SIBLINGS)
    if best_of:
        siblings = Study(best_of, tuple(SIBLINGS), rows(best_of), updates).best()
    return Study(world, siblings or (), rows(world), updates)
