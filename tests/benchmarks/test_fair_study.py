"""The fair study: one budget for all, a choice by the stated criterion, no work done twice, no claim beyond rows."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fair_study import basis as basis_module
from benchmarks.fair_study.anchors import scale_for
from benchmarks.fair_study.cells import ANCHOR, BACKWARDS, COLUMN, FINAL, PACE, SEARCH, Cell
from benchmarks.fair_study.claims import Claim, Runs, claims_of
from benchmarks.fair_study.objectives import SHARED, SIBLINGS, UPDATES
from benchmarks.fair_study.page import per_sibling, render, studies
from benchmarks.fair_study.records import Record, Records, key_of
from benchmarks.fair_study.search import (
    FACTORS,
    GUIDANCES,
    MOST_GROWN,
    PLAIN,
    SCALES_GUIDED,
    Outcome,
    Search,
    Setting,
    ranked,
    search,
)
from benchmarks.fair_study.sittings import CHOICE, REPORTED
from benchmarks.fair_study.source_digest import CODE, ROOT, plain_code, source_digest
from benchmarks.fair_study.study import SEARCH_SEED, SEEDS, START, TEACHER, study_of
from benchmarks.fair_study.work import Share, Worker
from benchmarks.fair_study.worlds import BEST, WORLDS
from dipp_toolkit import load_prompts
from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation.intervals import LEAST_EFFECT
from dipp_toolkit.registry import get_registry

FOLDER = ROOT / "benchmarks" / "fair_study"
START_FRECHET = 20.0
PROMPTS = 60
BASIS = "made"
BUDGET = len(FACTORS) + SCALES_GUIDED * len(GUIDANCES)
"""Runs of a sibling's search where the grid does not grow."""
Reached = Callable[[Setting], Outcome]


def peak_at(factor: float, guidance: float = PLAIN) -> Outcome:
    """What a setting reaches where a factor of 2 without guidance is best."""
    return Outcome(2.0 - abs(factor - 2.0) - abs(guidance - PLAIN), 0.99, 10.0)


def run_through(siblings: tuple[str, ...], reached: Reached) -> tuple[Search, list[Setting]]:
    """A whole search, and its settings in the order in which they were tried."""
    outcomes: dict[Setting, Outcome] = {}
    tried: list[Setting] = []
    while True:
        found = search(siblings, outcomes, START_FRECHET)
        new = [at for at in found.stage if at not in outcomes]
        if not new:
            return found, tried
        tried += new
        outcomes |= {at: reached(at) for at in new}


def test_every_sibling_has_the_same_budget_and_no_setting_is_tried_twice() -> None:
    found, tried = run_through(("a", "b"), lambda at: peak_at(at.factor, at.guidance))
    assert len(tried) == len(set(tried)) == len(found.planned)
    assert set(Counter(at.sibling for at in tried).values()) == {BUDGET}
    assert found.chosen == {name: Setting(name, 2.0, PLAIN) for name in ("a", "b")}
    assert (found.factors, found.at_edge) == (FACTORS, ())


def test_the_grid_grows_for_all_where_the_best_of_one_is_at_its_edge() -> None:
    def reached(at: Setting) -> Outcome:
        best = FACTORS[-1] if at.sibling == "a" else 2.0
        return Outcome(-abs(at.factor - best) - abs(at.guidance - PLAIN), 0.99, 10.0)

    found, tried = run_through(("a", "b"), reached)
    assert found.factors == (*FACTORS, 16.0)  # one beyond the best, which then is at no edge
    assert len(set(Counter(at.sibling for at in tried).values())) == 1
    assert (found.chosen["a"].factor, found.chosen["b"].factor, found.at_edge) == (8.0, 2.0, ())


def test_the_grid_stops_growing_and_says_whose_best_is_still_at_its_edge() -> None:
    found, _ = run_through(("a", "b"), lambda at: Outcome(-at.factor if at.sibling == "a" else 0.0, 0.99, 10.0))
    assert len(found.factors) == len(FACTORS) + MOST_GROWN
    assert "a" in found.at_edge
    assert found.chosen["a"].factor == FACTORS[0] / 2**MOST_GROWN


def test_guidance_grows_for_all_where_the_best_has_most_of_it() -> None:
    found, tried = run_through(
        ("a", "b"), lambda at: Outcome(at.guidance * (at.sibling == "a") - abs(at.factor - 2.0), 0.99, 10.0)
    )
    assert found.guidances == (1.5, 2.0)
    assert len(set(Counter(at.sibling for at in tried).values())) == 1
    assert (found.chosen["a"].guidance, found.chosen["b"].guidance) == (2.0, PLAIN)


def test_the_choice_is_by_the_stated_criterion() -> None:
    best, misnamed, far, plain = (Setting("a", factor, PLAIN) for factor in (1.0, 2.0, 4.0, 8.0))
    outcomes = {
        misnamed: Outcome(3.0, 0.96, 10.0),
        far: Outcome(2.9, 0.99, START_FRECHET + 0.1),
        best: Outcome(1.5, 0.97, START_FRECHET),
        plain: Outcome(1.4, 1.0, 1.0),
    }
    assert ranked(list(outcomes), outcomes, START_FRECHET) == [best, plain, misnamed, far]
    outside = {at: replace(outcome, naming=0.5) for at, outcome in outcomes.items()}
    assert ranked(list(outside), outside, START_FRECHET)[0] == misnamed


def test_what_settings_are_chosen_by_is_not_what_is_reported() -> None:
    assert not set(CHOICE.prompts) & set(REPORTED.prompts)
    assert not set(CHOICE.noises) & set(REPORTED.noises)
    assert SEARCH_SEED not in SEEDS
    assert len(REPORTED.prompts) == len(CHOICE.prompts) == 352


def test_no_recommendation_reaches_a_run_unwritten() -> None:
    varied = {"reward_scale", "guidance", "term", "weighting", "reference", "pull"}
    for world in WORLDS.values():
        entry = get_registry().entries["generator"].get(world.generator)
        if entry is not None:
            assert set(entry.defaults) - basis_module.LOOKS_ONLY - varied <= {
                *SHARED,
                *world.settings,
                "readout",
                "input_scale",
            }


def test_the_anchor_is_where_the_pull_is_what_was_asked_for() -> None:
    assert scale_for(0.7, lambda scale: scale / 20) == pytest.approx(14.0)
    assert scale_for(0.7, lambda scale: scale**0.9) == pytest.approx(0.7 ** (1 / 0.9), rel=0.02)
    with pytest.raises(ValueError, match="No scale was found"):
        scale_for(0.7, lambda scale: 0.1)


# Keys


@pytest.mark.parametrize(
    "change",
    [{"world": "w"}, {"part": FINAL}, {"name": "b"}, {"seed": 1}, {"updates": 81}, {"varied": (("guidance", 1.5),)}],
)
def test_a_key_changes_with_its_cell(change: dict[str, Any]) -> None:
    cell = Cell.of("emoji", SEARCH, "a", 0, 80, guidance=1.0)
    assert key_of(replace(cell, **change), BASIS) != key_of(cell, BASIS) != key_of(cell, "another")


def test_the_basis_does_not_change_with_a_recommended_scale_that_no_run_has(monkeypatch: pytest.MonkeyPatch) -> None:
    world = WORLDS["emoji"]
    basis, recommended = basis_module.basis_of(world), get_registry().entries["generator"][world.generator].defaults
    for name, value in {"reward_scale": 12.5, "guidance": 1.25, "ema": 0.5}.items():
        monkeypatch.setitem(recommended, name, value)
    assert basis_module.basis_of(world) == basis


def test_the_basis_changes_with_everything_that_numbers_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    world, digest = WORLDS["emoji"], basis_module.pipeline_digest
    basis = basis_module.basis_of(world)
    assert basis_module.basis_of(world) == basis
    folders: set[str] = set()
    monkeypatch.setattr(basis_module, "pipeline_digest", lambda folder: folders.add(folder.name) or digest(folder))
    basis_module.basis_of(world)
    assert folders == {"onestep", "reference", "judge", "preference", "clip"}

    def now(**changes: Any) -> str:
        with monkeypatch.context() as patch:
            for name, value in changes.items():
                patch.setattr(basis_module, name, value)
            return basis_module.basis_of(world)

    others = [
        *(now(pipeline_digest=lambda at, one=one: "x" if at.name == one else digest(at)) for one in sorted(folders)),
        now(source_digest=lambda: "x"),
        now(FORMAT=-1),
        now(load_prompts=lambda name: load_prompts("emoji-heldout")),
        *(
            now(SHARED=SHARED | {name: value})
            for name, value in {"learning_rate": 3e-4, "ema": 0.9, "warmup": 5}.items()
        ),
        *(
            now(SITTINGS={"choice": CHOICE, "reported": replace(REPORTED, **change)})
            for change in ({"noises": (1, 2)}, {"real": 9}, {"count": 351})
        ),
    ]
    assert len({basis, *others}) == len(others) + 1


def test_the_digest_of_the_code_is_blind_to_words_alone(tmp_path: Path) -> None:
    code = tmp_path / "a.py"
    code.write_text('"""About."""\n\n\ndef f(x):  # doubles\n    """Twice."""\n    return "#" + 2 * x\n')
    before = source_digest(tmp_path, ["*.py"])
    code.write_text('"""Other words,\n\nmore of them."""\n\ndef f(x):\n    # says why\n    return "#" + 2 * x\n')
    assert source_digest(tmp_path, ["*.py"]) == before
    assert plain_code(code.read_text()) == 'def f(x):\n    return "#" + 2 * x'
    code.write_text('def f(x):\n    return "#" + 3 * x\n')
    assert source_digest(tmp_path, ["*.py"]) != before
    with pytest.raises(FileNotFoundError, match="Where has it moved"):
        source_digest(tmp_path, ["*.py", "gone.py"])
    assert all(list(ROOT.glob(pattern)) for pattern in CODE)


# Rows and work


def made(cell: Cell, judge: float, frechet: float = 10.0, naming: float = 0.99) -> Record:
    """A row as a run would leave it: its scores are spread by prompt around its mean, alike in every row."""
    numbers = {
        "judge": [judge, judge - 0.1, judge + 0.1], "naming": naming, "frechet": frechet, "diversity": 0.1,
        "reward": judge, "seconds": 1.0,
    }  # fmt: skip
    jitter = random.Random(cell.id)
    apart = [(k - (PROMPTS - 1) / 2) / PROMPTS + 0.05 * jitter.uniform(-1, 1) for k in range(PROMPTS)]
    middle = sum(apart) / PROMPTS
    scores = [] if cell.part == SEARCH else [judge + value - middle for value in apart]
    return Record.made(cell, BASIS, numbers, scores, "a machine")


class Doing:
    """Does cells by a formula: siblings differ by how high they reach, seeds by a little.

    Attributes:
        done: ids, in order.
    """

    def __init__(self, levels: dict[str, float] | None = None, spread: float = 0.01):
        self.levels = {name: 1.0 + 0.2 * k for k, name in enumerate(SIBLINGS)} | (levels or {})
        self.spread = spread
        self.done: list[str] = []

    def __call__(self, cell: Cell, basis: str, folder: Path) -> Record:
        self.done.append(cell.id)
        (folder / "run").mkdir()
        (folder / "run" / "weights").touch()
        own = cell.settings
        if cell.part == ANCHOR:
            return Record.made(cell, basis, {"reward_scale": 10.0})
        if cell.part == PACE:
            paces = {name: 1.0 + 0.5 * (name == "di*") for name in own}
            return Record.made(cell, basis, {"seconds_per_update": paces})
        if cell.part == COLUMN:
            return made(cell, 0.3 if cell.name == START else 1.1, START_FRECHET if cell.name == START else 9.0)
        if cell.part == BACKWARDS:
            level = (own["assistant"] == "saved") - 0.02 * own["guidance"] + self.spread * cell.seed
            return made(cell, level)
        penalty = abs(own["reward_scale"] - 20.0) / 20 + (own["guidance"] - 1.0)
        return made(cell, self.levels[cell.name] - penalty + self.spread * (cell.seed % 10))


def worker(folder: Path, do: Doing, world: str = "emoji", **more: Any) -> Worker:
    """A worker on made cells."""
    best_of = WORLDS[world].best_of
    return Worker(
        records=Records(folder / "results.jsonl"),
        basis=BASIS,
        stages=lambda rows: study_of(world, best_of, rows, dict.fromkeys(WORLDS, BASIS)).stages,
        do=do,
        folder=folder / "work",
        **more,
    )


def rows_of(folder: Path) -> list[Record]:
    return Records(folder / "results.jsonl").read()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole study of the first world."""
    folder = tmp_path_factory.mktemp("whole")
    worker(folder, Doing()).work()
    return folder


def test_the_whole_study_has_each_cell_once(whole: Path) -> None:
    parts = Counter(row.cell.part for row in rows_of(whole))
    runs = BUDGET
    slower = len(SEEDS)  # of equal time only di* has another number of updates
    assert parts == {
        COLUMN: 3, ANCHOR: len(SIBLINGS), SEARCH: runs * len(SIBLINGS), PACE: 1,
        FINAL: len(SIBLINGS) * len(SEEDS) + slower, BACKWARDS: 8 * len(SEEDS),
    }  # fmt: skip
    counts = {row.cell.name: row.cell.updates for row in rows_of(whole) if row.cell.part == FINAL}
    assert counts["di*"] == round(UPDATES / 1.5)
    assert not list((whole / "work").glob("*/run")), "weights are kept"


def test_what_is_done_is_not_done_again(tmp_path: Path, whole: Path) -> None:
    shutil.copy(whole / "results.jsonl", tmp_path)
    again = Doing()
    assert (worker(tmp_path, again).work(), again.done) == (0, [])
    lines = (tmp_path / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text("".join(lines[:20]) + lines[20][:50])  # a kill cut the last row off
    assert worker(tmp_path, again).work() == len(lines) - 20
    assert len(set(again.done)) == len(again.done)
    assert sorted(row.key for row in rows_of(tmp_path)) == sorted(row.key for row in rows_of(whole))


def test_shares_divide_the_work(tmp_path: Path, whole: Path) -> None:
    doings = [Doing(), Doing()]
    while sum(worker(tmp_path, doing, share=Share(k, 2)).work() for k, doing in enumerate(doings)):
        pass
    done = [*doings[0].done, *doings[1].done]
    assert len(done) == len(set(done)) == len(rows_of(whole))
    assert min(len(doing.done) for doing in doings) > 0.4 * len(done)


def test_another_process_does_not_do_what_is_under_way(tmp_path: Path) -> None:
    other = Doing()

    class Interrupted(Doing):
        def __call__(self, cell: Cell, basis: str, folder: Path) -> Record:
            if not other.done:  # while this one is at its first cell the other takes two more
                assert worker(tmp_path, other, most=2).work() == 2
            return super().__call__(cell, basis, folder)

    doing = Interrupted()
    worker(tmp_path, doing, most=3).work()
    assert len({*doing.done, *other.done}) == 5


def test_nothing_is_begun_after_the_time_is_up(tmp_path: Path) -> None:
    ticks = iter(range(100))
    doing = Doing()
    assert worker(tmp_path, doing, deadline=3, clock=lambda: next(ticks)).work() == len(doing.done) == 3


@pytest.mark.parametrize("text", ["", "2/2", "1", "-1/2", "a/b"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="A share is"):
        Share.parse(text)
    assert Share.parse("1/2") == Share(1, 2)


def test_a_row_that_was_changed_by_hand_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = Cell.of("emoji", FINAL, "di++", 0, 80, guidance=1.0)
    records = Records(tmp_path / "rows.jsonl")
    records.append(made(cell, 1.0))
    assert records.read() == [made(cell, 1.0)]
    fields = json.loads(records.path.read_text())
    fields["cell"]["seed"] = 2
    records.path.write_text(json.dumps(fields) + "\n")
    assert records.read() == []
    assert "line 1, is not a row" in capsys.readouterr().err


def test_the_second_world_takes_the_three_best_of_the_first(whole: Path) -> None:
    rows, bases = rows_of(whole), dict.fromkeys(WORLDS, BASIS)
    last = list(SIBLINGS)[-BEST:]
    assert list(study_of("emoji-unet", "emoji", rows, bases).siblings) == last
    fewer = [row for row in rows if not (row.cell.part == FINAL and row.cell.name == last[0] and row.cell.seed == 2)]
    awaited = study_of("emoji-unet", "emoji", fewer, bases)
    assert awaited.siblings == ()
    assert {cell.part for stage in awaited.stages for cell in stage.cells} == {COLUMN}


# The page


def final_rows(levels: dict[str, float], spread: float) -> list[Record]:
    """The reported rows of made siblings, a run a seed, each a spread above the one before."""
    return [
        made(Cell.of("emoji", FINAL, name, seed, 80), level + spread * seed)
        for name, level in levels.items()
        for seed in SEEDS
    ]


def claim(a: float, b: float, spread: float = 0.01) -> Claim:
    """Two made siblings compared."""
    rows = final_rows({"a": a, "b": b}, spread)
    groups = [Runs.of(name, [row for row in rows if row.cell.name == name]) for name in ("a", "b")]
    return claims_of(groups)[0]


def test_a_claim_follows_its_numbers() -> None:
    assert claim(1.5, 1.0).sentence.startswith("a is better than b by 0.50 [")
    assert claim(1.0, 1.5).sentence.startswith("b is better than a by 0.50 [")
    few = claim(1.0, 1.0 + LEAST_EFFECT * 0.2, spread=0.001)
    assert few.comparison.certain
    assert few.winner == ""
    assert "smaller than 0.1 standard deviations" in few.sentence
    overlapping = claim(1.0, 1.2, spread=0.3)
    assert overlapping.comparison.winner == "b"
    assert (overlapping.winner, "their runs overlap" in overlapping.sentence) == ("", True)
    assert "does not tell them apart" in claim(1.0, 1.0, spread=0.0).sentence


def test_a_verdict_cannot_be_set() -> None:
    said = claim(1.5, 1.0)
    with pytest.raises(TypeError):
        replace(said, winner="b")  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        said.winner = "b"  # type: ignore[misc]
    turned = replace(said, seeds={"a": (1.0,), "b": (1.0,)})
    assert turned.winner == ""


def claims_in(page: str) -> list[tuple[str, str]]:
    return re.findall(r"^- (.+) is better than (.+) by ", page, re.MULTILINE)


@pytest.mark.parametrize("spread", [0.01, 0.15])
def test_the_page_claims_what_its_rows_say_and_nothing_else(tmp_path: Path, spread: float) -> None:
    worker(tmp_path, Doing(spread=spread)).work()
    rows = rows_of(tmp_path)
    page = render(rows, tmp_path)
    updates = page.partition("**Equal updates")[2].partition("**Equal time")[0]
    means: dict[str, list[float]] = {}
    for row in rows:
        if (row.cell.part == FINAL and row.cell.updates == UPDATES) or dict(row.cell.varied).get(
            "sitting"
        ) == "reported":
            means.setdefault(row.cell.name, []).append(row.numbers["judge"][0])
    assert len(means) == len(SIBLINGS) + 2
    expected = {
        (a, b) for a in means for b in means if min(means[a]) > max(means[b]) and {a, b} != {START, TEACHER}
    }  # made rows differ by far more than chance and by more than a tenth of a deviation
    assert set(claims_in(updates)) == expected
    assert (len(expected) < 25) == (spread > 0.1)
    for name, own in means.items():
        assert f"| {name} |" in updates
        assert f"| {sum(own) / len(own):.2f} [" in updates
    assert (tmp_path / "updates-emoji.svg").read_text().count("<circle") == len(SIBLINGS)


def test_the_page_says_how_much_is_done(tmp_path: Path, whole: Path) -> None:
    empty, searched = render([], tmp_path), BUDGET * len(SIBLINGS)
    assert f"| search | 0 | at least {searched} |" in empty
    assert claims_in(empty) == []
    rows = rows_of(whole)
    assert f"| search | {searched} | {searched} |" in render(rows, tmp_path)
    some = render([row for row in rows if row.cell.part != FINAL], tmp_path)
    assert "| reported runs | 0 | 21 |" in some
    assert "Equal updates" not in some
    two_seeds = render([row for row in rows if not (row.cell.part == FINAL and row.cell.seed == 2)], tmp_path)
    assert "is better than" not in two_seeds.partition("Why did")[0], "claims need all seeds"
    assert "Equal updates" not in two_seeds


def test_the_page_answers_why_distillation_went_backwards(whole: Path, tmp_path: Path) -> None:
    section = render(rows_of(whole), tmp_path).partition("Why did distillation")[2]
    assert section.count("| forwards |") == 4
    assert section.count("| backwards |") == 4
    better = claims_in(section.partition("### World")[0])
    assert better[0] == ("an assistant as saved with the start", "an assistant a copy of the reference")
    assert not any("learning rate" in name for pair in better for name in pair)


def test_a_search_with_unequal_budgets_is_not_rendered(whole: Path) -> None:
    found = studies(rows_of(whole))["emoji"].searched
    assert found is not None
    with pytest.raises(ValueError, match="same budget"):
        per_sibling(replace(found, planned=found.planned[1:]))


def test_the_recorded_page_is_what_its_rows_say(tmp_path: Path) -> None:
    recorded = render(Records(FOLDER / "results.jsonl").read(), tmp_path)
    assert (FOLDER / "results.md").read_text(encoding="utf-8") == recorded, (
        "run: python benchmarks/fair_study/run.py --page"
    )
    for path in tmp_path.glob("*.svg"):
        assert (FOLDER / path.name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
