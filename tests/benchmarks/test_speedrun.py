"""The speedrun: rules are held, seconds outlive interruptions, each target counts, and the table is the record's."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.speedrun.clock import Clock
from benchmarks.speedrun.race import Outcome, race
from benchmarks.speedrun.records import EMPTY, HERE, RECORDS, keep, ratio, record_of, table, worst
from benchmarks.speedrun.rules import EVERY, FIXED, RULES, SEEDS, Entry, RuleError, World
from benchmarks.speedrun.targets import Look, Targets, recorded_bound
from dipp_toolkit import Generator, RequestError, TrainConfig, load_generator
from dipp_toolkit.config import make_config
from dipp_toolkit.errors import Interrupted
from dipp_toolkit.utils.content_digests import file_digest
from dipp_toolkit.utils.jsonl import whole_rows
from tiny_runs import blue_settings, tiny_world

EMOJI = World.named("emoji")
GOALS = Targets(judge=1.0, diversity=0.08)
BELOW = Look(0.5, 0.4, 0.6, 0.98, 0.09)
ENOUGH = Look(1.1, 1.0, 1.2, 0.97, 0.08)


def entry(folder: Path, text: str, name: str = "mine") -> Entry:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return Entry.read(path)


@pytest.mark.parametrize("rule, name", [(rule, name) for rule, names in FIXED.items() for name in names])
def test_what_is_fixed_is_refused_by_its_rule(rule: str, name: str) -> None:
    given = Entry("mine", "", {name: getattr(make_config({}), name)})
    with pytest.raises(RuleError, match=rf"The setting {name} cannot be .*: {RULES[rule]} \(the rule '{rule}'"):
        given.check(EMOJI)


@pytest.mark.parametrize(
    "text, rule",
    [
        ("rewards: {emoji-judge: 1.0}", "judge"),
        ("floors: {emoji-judge: 1.0}", "judge"),
        ("rewards: {'mine.py:reward': 1.0}", "settings"),
        ("rewards: {'http://localhost:1': 1.0}", "settings"),
        ("rewards: {'hpsv3@elsewhere': 1.0}", "settings"),
        ("reward_options: {emoji-clip: {folder: mine}}", "settings"),
        ("term: mine.py:Term", "settings"),
        ("term: f_divergence\nterm_options: {f_divergence: {kind: [./mine.txt]}}", "settings"),
        ("prompts: emoji-heldout", "held-out"),
        ("prompts: mine.txt", "settings"),
        ("monitor: {every: 5}", "looks"),
    ],
)
def test_an_entry_that_breaks_a_rule_is_refused(tmp_path: Path, text: str, rule: str) -> None:
    with pytest.raises(RuleError, match=f"the rule '{rule}' of benchmarks/speedrun/README.md"):
        entry(tmp_path, text).check(EMOJI)


def test_unknown_and_impossible_settings_are_the_toolkits_own_errors(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"There is no setting 'stepz'\. Did you mean 'steps'\?"):
        entry(tmp_path, "stepz: 3")
    with pytest.raises(RequestError, match=r"The entry .* is not a mapping"):
        entry(tmp_path, "- 3")
    with pytest.raises(RequestError, match="emoji-prefer"):
        entry(tmp_path, "rewards: {emoji-prefer: 1.0}").check(EMOJI)


def test_whatever_else_a_training_has_may_be_set(tmp_path: Path) -> None:
    text = "pull: 2\nsteps: 40\nbatch_size: 64\nema: 0.9\nmode: lora\nrewards: {emoji-clip: 1}\ncompile: on\n"
    own = entry(tmp_path, text)
    own.check(EMOJI)
    config = own.config(EMOJI, 2, tmp_path)
    assert (config.seed, config.steps, config.checkpoint_every, config.device) == (2, 40, EVERY, "cpu")
    assert (config.generator, config.reference, config.judge) == ("emoji-onestep", "emoji-reference", "emoji-judge")
    assert own.resolved(EMOJI)["pull"] == 2 and "out" not in own.resolved(EMOJI)
    assert set(FIXED) <= set(RULES) and {name for names in FIXED.values() for name in names} <= set(
        TrainConfig.model_fields
    )


def test_the_page_has_every_rule_and_every_fixed_setting() -> None:
    page = (HERE / "README.md").read_text(encoding="utf-8")
    assert [rule for rule in RULES if f"**{rule}**" not in page] == []
    assert [name for names in FIXED.values() for name in names if f"`{name}`" not in page] == []
    links = [link for link in re.findall(r"\]\(([^)\s#]+)", page) if "://" not in link]
    assert links and [link for link in links if not (HERE / link).exists()] == []


@pytest.mark.parametrize(
    "short, missing",
    [
        ({}, None),
        ({"judge": 1.0}, "judge"),
        ({"naming": 0.9699}, "naming"),
        ({"diversity": 0.0799}, "diversity"),
    ],
)
def test_each_target_alone_is_needed(short: dict[str, float], missing: str | None) -> None:
    look = replace(ENOUGH, **short)
    assert GOALS.met(look) == {name: name != missing for name in ("judge", "naming", "diversity")}
    assert GOALS.reached(look) is (missing is None)


def test_the_clock_leaves_pauses_out_and_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    now = [100.0]
    clock = Clock(tmp_path / "clock.jsonl", lambda: now[0])
    clock.begin()
    now[0] += 3
    clock.note(1)
    with clock.paused():
        now[0] += 50
    now[0] += 4
    clock.note(2)
    assert (clock.at(1), clock.at(2)) == (3, 7)
    with (tmp_path / "clock.jsonl").open("a") as file:
        file.write('{"step": 3, "sec')  # as a kill leaves it

    now[0] = 5.0  # another process
    clock = Clock(tmp_path / "clock.jsonl", lambda: now[0])
    clock.begin()
    now[0] += 2
    clock.note(2)  # update 2 was in no checkpoint
    assert (clock.at(1), clock.at(2), clock.pieces) == (3, 9, 2)
    assert Clock(tmp_path / "clock.jsonl").at(2) == 9


class Scripted:
    """Sees what it is told to, look by look, and keeps the weights that it was shown."""

    def __init__(self, *looks: Look):
        self.looks, self.weights = list(looks), list[torch.Tensor]()

    def __call__(self, generator: Generator) -> Look:
        self.weights.append(torch.cat([value.detach().flatten() for value in generator.network.parameters()]))
        return self.looks.pop(0)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("world")
    blue = "def blueness(images, prompts):\n    return images[:, 2].mean((1, 2))\n"
    own = blue_settings(folder, blue, checkpoint_every=2, steps=5, sample_every=100, precision="fp32")
    return own | tiny_world(folder) | {"learning_rate": 1e-2, "ema": 0.9, "eval_count": 2}


def quiet(text: str) -> None:
    pass


def run(settings: dict[str, Any], folder: Path, look: Any, **more: Any) -> Outcome:
    config = make_config({**settings, "out": folder / "run", "prompt_cache": folder / "prompts", **more})
    return race(config, folder, look, GOALS, quiet)


def test_a_run_ends_at_the_first_point_that_meets_all_targets(settings: dict[str, Any], tmp_path: Path) -> None:
    outcome = run(settings, tmp_path, Scripted(BELOW, ENOUGH))
    assert (outcome.updates, outcome.reached, outcome.pieces) == (4, True, 1)
    assert outcome.seconds == Clock(tmp_path / "clock.jsonl").at(4) > 0
    assert not (tmp_path / "run" / "summary.json").exists()
    assert run(settings, tmp_path, Scripted()) == outcome, "a run that has ended is not run again"


def test_a_run_that_never_reaches_is_looked_at_to_its_last_update(settings: dict[str, Any], tmp_path: Path) -> None:
    look = Scripted(BELOW, BELOW, BELOW)
    outcome = run(settings, tmp_path, look)
    assert (outcome.updates, outcome.reached) == (5, False)
    exported = load_generator(str(tmp_path / "run"))
    final = torch.cat([value.detach().flatten() for value in exported.network.parameters()])
    torch.testing.assert_close(look.weights[-1], final)
    assert not torch.equal(look.weights[0], look.weights[1])
    assert worst([outcome]) is None


def test_adapters_are_looked_at_as_well(settings: dict[str, Any], tmp_path: Path) -> None:
    look = Scripted(BELOW, ENOUGH)
    assert run(settings, tmp_path, look, mode="lora", lora_rank=2).reached
    assert not torch.equal(*look.weights)


def test_a_run_that_was_cut_keeps_its_seconds(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = Clock.note

    def interrupt(clock: Clock, step: int) -> None:
        note(clock, step)
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Clock, "note", interrupt)
        run(settings, tmp_path, Scripted(BELOW))  # the checkpoint that the interruption leaves is none of the points
    spent = Clock(tmp_path / "clock.jsonl").at(3)
    outcome = run(settings, tmp_path, Scripted(ENOUGH))
    assert (outcome.updates, outcome.pieces, outcome.reached) == (4, 2, True)
    assert outcome.seconds > spent > 0
    steps = [row["step"] for row in whole_rows(tmp_path / "clock.jsonl") if "step" in row]
    assert steps[:4] == [1, 2, 3, 4], "no update is made twice after an interruption that was saved"


def test_a_checkpoint_that_a_kill_left_without_a_look_is_looked_at(settings: dict[str, Any], tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die(generator: Generator) -> Look:
        raise Killed

    with pytest.raises(Killed):
        run(settings, tmp_path, die)
    outcome = run(settings, tmp_path, Scripted(ENOUGH))
    assert (outcome.updates, outcome.pieces) == (2, 1), "no second piece was begun"


def outcomes(*seconds: float, reached: bool = True) -> list[Outcome]:
    return [
        Outcome(seed, 20 + 10 * seed, spent, 1, reached or seed != 1, ENOUGH.as_dict())
        for seed, spent in enumerate(seconds)
    ]


def test_an_entry_counts_with_its_slowest_seed() -> None:
    assert worst(outcomes(5.0, 9.0, 7.0)) == {"seconds": 9.0, "updates": 40}
    assert ratio(outcomes(5.0, 9.0, 7.0), outcomes(10.0, 12.0, 11.0)) == 0.75
    assert worst(outcomes(5.0, 9.0, 7.0, reached=False)) is None
    assert ratio(outcomes(5.0, 9.0, 7.0), outcomes(5.0, 9.0, reached=False)) is None


def test_only_what_reached_with_every_seed_is_recorded(tmp_path: Path) -> None:
    own = entry(tmp_path, "steps: 40")
    for runs, message in [
        (outcomes(5.0, 9.0, 7.0, reached=False), "did not reach the targets"),
        (outcomes(5.0, 9.0), f"--seeds {SEEDS}"),
    ]:
        with pytest.raises(RequestError, match=message):
            record_of(own, EMOJI, runs, outcomes(5.0, 9.0, 7.0), GOALS)


def test_the_table_is_rendered_from_the_records(tmp_path: Path) -> None:
    folder, own = tmp_path / "speedrun", entry(tmp_path, "steps: 40  # short")
    folder.mkdir()
    record = record_of(own, EMOJI, outcomes(50.0, 90.0, 70.0), outcomes(100.0, 120.0, 110.0), GOALS)
    keep(record, tmp_path / "mine.yaml", folder)
    keep({**record, "ratio": None, "threads": 2}, tmp_path / "mine.yaml", folder)
    lines = (folder / "results.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells[:6] == [record["date"], "emoji", "mine", "90.0", "40", "0.75"]
    assert cells[6] == "50.0 s, 20; 90.0 s, 30; 70.0 s, 40" and "1.10 or more, above 1.00" in cells[7]
    assert "1 thread," in lines[2] and "2 threads," in lines[3] and "the default did not reach it" in lines[3]
    assert (folder / "entries" / "mine.yaml").read_text() == "steps: 40  # short"
    (tmp_path / "mine.yaml").write_text("steps: 50")
    with pytest.raises(RequestError, match="Another entry is called mine"):
        keep(record, tmp_path / "mine.yaml", folder)
    assert table([]) == f"{EMPTY}\n"


def test_the_shipped_table_is_that_of_the_shipped_records() -> None:
    rows = whole_rows(HERE / RECORDS)
    assert (HERE / "results.md").read_text(encoding="utf-8") == table(rows)
    for row in rows:
        assert file_digest(HERE / "entries" / f"{row['entry']}.yaml") == row["sha256"]
        assert row["targets"]["judge"] < min(run["look"]["judge"] for run in row["runs"])
    for path in sorted((HERE / "entries").glob("*.yaml")):
        Entry.read(path).check(EMOJI)
    assert Entry.read(HERE / "entries" / "default.yaml").settings == {}


def test_a_recorded_bound_is_that_of_todays_teacher_or_none(tmp_path: Path) -> None:
    results = {
        "teacher": {"key": "today", "column": "reference"},
        "reference_guidance": {"guidance": 1.5},
        "columns": {"reference": {"preference": {"mean": 1.1, "low": 1.0, "high": 1.3}}},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "results-old.json").write_text(json.dumps({"columns": {}}))
    assert recorded_bound("today", tmp_path) == (1.3, 1.5)
    assert recorded_bound("another", tmp_path) is None
