"""The study of the few-step RL terms: every way of a part has the same time, and the page says what was measured."""

from __future__ import annotations

import pytest

from benchmarks.few_step_rl.run import PARTS, page, updates_of, with_half
from benchmarks.few_step_rl.ways import DYNAMIC, HALF, PACE, UPDATES, WAYS
from dipp_toolkit.config import make_config

SECONDS = {
    way.name: [0.5 * (1 + number) + 0.1 * phase for phase in range(len(way.phases))]
    for ways in WAYS.values()
    for number, way in enumerate(ways)
}


@pytest.mark.parametrize("part", WAYS)
def test_all_ways_of_a_part_have_the_same_time(part: str) -> None:
    counts = updates_of(part, SECONDS)
    total = UPDATES[part] * SECONDS[PACE[part]][0]
    assert counts[PACE[part]] == [UPDATES[part]]
    for way in WAYS[part]:
        spent = [count * seconds for count, seconds in zip(counts[way.name], SECONDS[way.name], strict=True)]
        assert sum(spent) == pytest.approx(total, abs=2)
        assert all(one == pytest.approx(total / len(spent), abs=1) for one in spent)


def test_half_is_half_of_the_ways_own_updates() -> None:
    assert with_half(DYNAMIC, 31)["term_options"] == {"dynamic_kl": {"updates": 15}}
    assert HALF not in str(with_half(DYNAMIC, 31))


@pytest.mark.parametrize("part", WAYS)
def test_settings_of_every_way_are_valid(part: str) -> None:
    for way in WAYS[part]:
        for phase in way.phases:
            make_config({**PARTS[part], **with_half(phase, 40)})


def test_the_page_shows_every_row_and_the_start() -> None:
    found = {"mean": 1.234, "low": 1.0, "high": 1.5}
    row = {
        "updates": [7, 5], "judge": found, "before": {"mean": -5.0, "low": -6.0, "high": -4.0},
        "rewards": {"emoji-preference": 2.5}, "diversity": 0.1,
    }  # fmt: skip
    text = page({"parts": {"aligned": {"a": row}, "distilled": {}}, "seconds": {"a": [0.5, 1.25]}, "ran_on": "Here."})
    assert "| a | 7 and 5 | 1.23 [1.00, 1.50] | 2.50 | 0.100 |" in text
    assert "before any update: -5.00 [-6.00, -4.00]" in text and "a 0.50 and 1.25" in text
