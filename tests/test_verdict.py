"""The sentence that opens a report, and the numbers in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dipp_toolkit.evaluation.intervals import Interval
from dipp_toolkit.report.numbers import decimals_for, text_of
from dipp_toolkit.report.run_files import read_run
from dipp_toolkit.report.verdict import change_of, verdict
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
    same = change_of({name: Interval(**one) for name, one in columns.items()}, Interval(0.05, -0.02, 0.12))
    assert same.direction == "same" and "includes zero" in same.evidence
    paired = change_of({name: Interval(**one) for name, one in columns.items()}, Interval(0.05, 0.02, 0.08))
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


def test_decimals_follow_the_interval() -> None:
    assert decimals_for([Interval(1.0, 0.9, 1.1)]) == 2
    assert decimals_for([Interval(1234.0, 1100.0, 1300.0)]) == 0
    assert decimals_for([Interval(0.5, 0.5, 0.5)]) == 3
    assert text_of(-0.001, 1) == "0.0" and text_of(1.5, 1, True) == "+1.5"
