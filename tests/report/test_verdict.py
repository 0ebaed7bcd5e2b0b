"""The sentence that opens a report, and the numbers in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dipp_toolkit.evaluation.intervals import Interval
from dipp_toolkit.monitoring.diagnostics.distance import NAME as FAR
from dipp_toolkit.report.charts.formatting import decimals_for, text_of
from dipp_toolkit.report.run_files import read_run
from dipp_toolkit.report.verdict import change_of, verdict
from dipp_toolkit.report.write import render
from fake_run import interval, write_run


def sentence(folder: Path) -> str:
    return verdict(read_run(folder)).text


def test_rise_without_overlap(tmp_path: Path) -> None:
    text = sentence(write_run(tmp_path / "run"))
    assert "emoji-preference rose from −1.20 to 0.45 (95 % intervals do not overlap)" in text
    assert "the judge emoji-judge, never trained on, rose too" in text
    assert "diversity is 0.97 of the start" in text
    assert verdict(read_run(tmp_path / "run")).tone == "better"


def test_fall_is_called_a_fall(tmp_path: Path) -> None:
    columns = {"before": interval(0.5), "after": interval(-0.5)}
    summary = {
        "rewards": {"r": columns}, "gain": {"r": interval(-1), "emoji-judge": interval(-1)},
        "judge": {"name": "emoji-judge", **columns},
    }  # fmt: skip
    found = verdict(read_run(write_run(tmp_path / "run", rewards={"r": 1.0}, summary=summary)))
    assert "r fell from 0.50 to −0.50" in found.text and "rose" not in found.text
    assert found.tone == "worse"


def test_reward_hacking_is_named(tmp_path: Path) -> None:
    judge = {"name": "emoji-judge", "before": interval(0.5), "after": interval(-0.5)}
    summary = {"judge": judge, "gain": {"emoji-judge": interval(-1), "emoji-preference": interval(1.65)}}
    found = verdict(read_run(write_run(tmp_path / "run", summary=summary)))
    assert "never trained on, fell" in found.text and "reward hacking" in found.text and "too" not in found.text
    assert found.tone == "mixed"


def test_overlap_is_said(tmp_path: Path) -> None:
    columns = {"before": interval(0.50), "after": interval(0.55)}
    same = change_of({name: Interval(**column) for name, column in columns.items()}, Interval(0.05, -0.02, 0.12))
    assert same.direction == "same" and "includes zero" in same.evidence
    paired = change_of({name: Interval(**column) for name, column in columns.items()}, Interval(0.05, 0.02, 0.08))
    assert paired.direction == "rose" and "overlap, but" in paired.evidence and "leaves zero out" in paired.evidence
    summary = {"rewards": {"r": columns}, "judge": None, "gain": {"r": {"mean": 0.05, "low": -0.02, "high": 0.12}}}
    text = sentence(write_run(tmp_path / "run", rewards={"r": 1.0}, summary=summary))
    assert "r did not change measurably" in text and "overlap" in text and "judge" not in text


@pytest.mark.parametrize(("judge", "tone"), [(1.0, "better"), (0.0, "mixed"), (-1.0, "mixed")])
def test_a_reward_at_its_ceiling_spoils_no_run_the_judge_likes(tmp_path: Path, judge: float, tone: str) -> None:
    summary = {
        "rewards": {
            "full": {"before": interval(90), "after": interval(90)},
            "r": {"before": interval(0), "after": interval(1)},
        },
        "judge": {"name": "emoji-judge", "before": interval(0.0), "after": interval(judge)},
        "gain": {"full": interval(0), "r": interval(1), "emoji-judge": interval(judge)},
    }
    assert verdict(read_run(write_run(tmp_path / "run", rewards={"full": 1.0, "r": 1.0}, summary=summary))).tone == tone


def test_lost_diversity_is_no_better_run(tmp_path: Path) -> None:
    found = verdict(read_run(write_run(tmp_path / "run", summary={"diversity": {"before": 0.1, "after": 0.04}})))
    assert "diversity fell to 0.40 of the start" in found.text and found.tone == "mixed"


def test_negative_weight_aims_downwards(tmp_path: Path) -> None:
    summary = {"rewards": {"r": {"before": interval(0.5), "after": interval(-0.5)}}, "gain": {}, "judge": None}
    found = verdict(read_run(write_run(tmp_path / "run", rewards={"r": -1.0}, summary=summary)))
    assert "falling is the aim" in found.text and found.tone == "better"


def null_summary(effect: float | None) -> dict[str, Any]:
    """A change that is the same for every prompt: certain, and far below what tells one prompt from another."""
    before, after = ({"mean": mean, "low": -0.35, "high": -0.18} for mean in (-0.269, -0.26898))
    columns = {"before": before, "after": after}
    gain: dict[str, Any] = {"mean": 2e-5, "low": 1e-5, "high": 3e-5} | ({} if effect is None else {"effect": effect})
    return {
        "rewards": {"blueness": columns}, "gain": {"blueness": gain, "emoji-judge": gain},
        "judge": {"name": "emoji-judge", **columns}, "diversity": {"before": 0.1, "after": 0.1}, "warned": [],
    }  # fmt: skip


@pytest.mark.parametrize("effect", [0.0002, None])
def test_a_run_that_changed_nothing_is_not_better(tmp_path: Path, effect: float | None) -> None:
    """A run of before the size was measured has it from its intervals."""
    folder = write_run(tmp_path / "run", rewards={"blueness": 1.0}, summary=null_summary(effect))
    found = verdict(read_run(folder))
    assert found.tone == "unclear" and "rose" not in found.text
    assert "did not change measurably" in found.text and "0.00 standard deviations over prompts" in found.text
    page = re.sub(r"<style.*?</style>", "", render(read_run(folder)), flags=re.S)
    head = " ".join(re.sub(r"<[^>]+>", " ", page).split())[:1000]
    assert "unclear" in head and not re.search(r"\bbetter\b", head, re.I)


def test_numbers_that_print_alike_did_not_change() -> None:
    columns = {"before": Interval(1.001, 0.9, 1.1), "after": Interval(1.002, 0.9, 1.1)}
    found = change_of(columns, Interval(0.001, 0.0005, 0.0015), effect=0.2)
    assert found.direction == "same" and "print alike" in found.evidence


def test_a_size_below_the_least_is_never_rounded_up_to_it() -> None:
    columns = {"before": Interval(0.5, 0.4, 0.6), "after": Interval(0.55, 0.45, 0.65)}
    just_below = change_of(columns, Interval(0.05, 0.04, 0.06), effect=0.0999)
    assert just_below.direction == "same" and "0.09 standard" in just_below.evidence
    assert change_of(columns, Interval(0.05, 0.04, 0.06), effect=0.1).direction == "rose"


@pytest.mark.parametrize("warning", ["over-optimisation", "diversity-collapse", "over-saturation", FAR])
def test_no_run_is_better_that_a_monitor_warns_of(tmp_path: Path, warning: str) -> None:
    found = verdict(read_run(write_run(tmp_path / "run", summary={"warned": [warning]})))
    assert found.tone == "mixed" and f"warned of: {warning}" in found.text
    assert verdict(read_run(write_run(tmp_path / "quiet", summary={"warned": ["assistant-lag"]}))).tone == "better"


def test_a_cheat_is_never_better(tmp_path: Path) -> None:
    summary = {
        "judge": {"name": "emoji-judge", "before": interval(0.5), "after": interval(-11)},
        "gain": {"emoji-judge": interval(-11.5), "emoji-preference": interval(12), "emoji-clip": interval(-90)},
        "rewards": {
            "emoji-preference": {"before": interval(0.2), "after": interval(12.2)},
            "emoji-clip": {"before": interval(90), "after": interval(0)},
        },
        "warned": ["over-optimisation", "diversity-collapse"],
    }
    found = verdict(read_run(write_run(tmp_path / "run", rewards={"emoji-preference": 1.0}, summary=summary)))
    assert found.tone == "mixed" and "reward hacking" in found.text


@pytest.mark.parametrize(
    ("after", "said", "tone"),
    [(0.08, "rose from", "mixed"), (0.004, "fell from", "better"), (0.0241, "did not change measurably", "better")],
)
def test_a_distillation_that_moved_away_from_the_reference_is_not_better(
    tmp_path: Path, after: float, said: str, tone: str
) -> None:
    summary = {
        "rewards": {}, "divergence": {"before": 0.024, "after": after}, "gain": {"emoji-judge": interval(1.65)},
    }  # fmt: skip
    found = verdict(read_run(write_run(tmp_path / "run", rewards={}, summary=summary)))
    assert f"the divergence estimate {said}" in found.text and found.tone == tone


def test_a_verdict_says_what_it_covers(tmp_path: Path) -> None:
    found = verdict(read_run(write_run(tmp_path / "run", summary={"seed": 7})))
    assert found.scope.startswith(
        "Said of this training alone (seed 7), on 14 prompts of emoji-heldout, 2 noises each."
    )
    assert "at least 0.1 standard deviations over prompts" in found.scope
    assert "Said of this training alone (seed 7)" in render(read_run(tmp_path / "run"))


def test_decimals_follow_the_interval() -> None:
    assert decimals_for([Interval(1.0, 0.9, 1.1)]) == 2
    assert decimals_for([Interval(1234.0, 1100.0, 1300.0)]) == 0
    assert decimals_for([Interval(0.5, 0.5, 0.5)]) == 3
    assert text_of(-0.001, 1) == "0.0" and text_of(1.5, 1, True) == "+1.5"
