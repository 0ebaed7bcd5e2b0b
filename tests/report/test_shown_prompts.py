"""Which prompts a run shows: by whose score, which gained most, which are drawn, and that it is said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dipp_toolkit.evaluation.intervals import share_interval
from dipp_toolkit.report import write_report
from dipp_toolkit.report.before_after import font, wrapped
from dipp_toolkit.report.run_files import read_run
from dipp_toolkit.report.shown_prompts import (
    STRIP,
    WHOLE,
    Ranking,
    alike,
    choose_prompts,
    find_ranking,
    recorded_prompts,
)
from dipp_toolkit.report.strips import strips_in_short, strips_of
from fake_run import write_run

NOUNS = ("fox", "cake", "tree", "moon", "boat", "sea fish")
COLOURS = ("red", "blue", "green", "grey", "black", "white", "pink")
PROMPTS = [f"{noun} on {colour}" for noun in NOUNS for colour in COLOURS]


def columns(before: Any, after: Any) -> dict[str, torch.Tensor]:
    return {"before": torch.tensor(before), "after": torch.tensor(after)}


def judged(gains: list[float]) -> Ranking:
    """Gains of prompts by the first noise; the second noise gains nothing."""
    before = torch.zeros(len(gains), 2)
    after = torch.tensor([[gain, 0.0] for gain in gains])
    return Ranking(["some-judge"], "judge", before, after)


def falling(count: int) -> list[float]:
    return [float(count - row) for row in range(count)]


def test_the_judge_ranks_before_what_is_measured_and_that_before_what_is_trained_on() -> None:
    scores = {name: columns([[0.0]], [[float(k)]]) for k, name in enumerate(("judge", "seen", "a", "b"))}
    weights = {"a": 0.5, "b": 2.0}
    ranking = find_ranking(scores, "judge", weights)
    assert ranking is not None and (ranking.by, ranking.role) == (["judge"], "judge")
    ranking = find_ranking(scores, None, {**weights, "judge": 1.0})
    assert ranking is not None and (ranking.by, ranking.role) == (["seen"], "measured")
    ranking = find_ranking({name: scores[name] for name in ("a", "b")}, None, weights)
    assert ranking is not None and (ranking.by, ranking.role) == (["a", "b"], "trained")
    assert ranking.after.tolist() == [[0.5 * 2 + 2.0 * 3]]
    assert find_ranking({"a": {"after": torch.ones(1, 1)}}, "judge", weights) is None
    assert find_ranking({}, None, {}) is None


def test_of_a_reward_that_is_to_fall_the_largest_falls_are_gains() -> None:
    after = [[float(row)] for row in range(len(PROMPTS))]
    ranking = find_ranking({"a": columns([[1.0]] * len(PROMPTS), after)}, None, {"a": -1.0})
    assert ranking is not None and ranking.role == "lowered"
    shown = choose_prompts(PROMPTS, ranking)
    assert [one.row for one in shown.gained] == [0] and shown.gained[0].after == 0
    assert "trained to fall" in strips_of(shown, PROMPTS)[0].text


def test_largest_gains_of_the_first_noise_fall_and_no_two_are_alike() -> None:
    shown = choose_prompts(PROMPTS, judged(falling(len(PROMPTS))))
    rows = [one.row for one in shown.gained]
    gains = [(one.after or 0) - (one.before or 0) for one in shown.gained]
    assert len(rows) == STRIP and gains == sorted(gains, reverse=True) and rows[0] == 0
    texts = [PROMPTS[row] for row in rows]
    assert not any(alike(a, b) for k, a in enumerate(texts) for b in texts[:k])
    # Whoever was passed over is like one that gained more.
    for row in set(range(rows[-1])) - set(rows):
        assert any(alike(PROMPTS[row], PROMPTS[kept]) for kept in rows if kept < row)


def test_alike_prompts_fill_a_strip_where_there_are_no_others() -> None:
    prompts = [f"a photo of one cat, take {row}" for row in range(WHOLE + 1)]
    shown = choose_prompts(prompts, judged(falling(len(prompts))))
    assert [one.row for one in shown.gained] == list(range(STRIP))
    assert "words in common" not in strips_of(shown, prompts)[0].text


def test_prompts_that_lost_are_no_gains() -> None:
    shown = choose_prompts(PROMPTS, judged([1.0, 0.0, *[-1.0] * (len(PROMPTS) - 2)]))
    assert [one.row for one in shown.gained] == [0] and len(shown.drawn) == STRIP
    shown = choose_prompts(PROMPTS, judged([-1.0] * len(PROMPTS)))
    assert shown.gained == [] and len(shown.drawn) == WHOLE
    (strip,) = strips_of(shown, PROMPTS)
    assert strip.title == "Drawn at random" and "No image gained by some-judge" in strip.text
    assert strips_in_short(shown).endswith("none gained by some-judge")


def test_the_drawn_ones_depend_on_the_prompts_alone() -> None:
    first = choose_prompts(PROMPTS, judged(falling(len(PROMPTS))))
    other = choose_prompts(PROMPTS, judged([float(row) for row in range(len(PROMPTS))]))
    turned = choose_prompts(PROMPTS[::-1], judged(falling(len(PROMPTS))))
    texts = [PROMPTS[one.row] for one in first.drawn]
    assert texts == [PROMPTS[one.row] for one in other.drawn] == [PROMPTS[::-1][one.row] for one in turned.drawn]
    assert len(set(texts)) == STRIP and [one.row for one in first.drawn] != sorted(one.row for one in first.drawn)


def test_the_share_is_of_all_prompts_by_their_means_over_noises() -> None:
    before, after = torch.zeros(20, 2), torch.zeros(20, 2)
    after[:10] = torch.tensor([3.0, -1.0])  # rises in the mean
    after[10:14] = torch.tensor([1.0, -1.0])  # a tie
    after[14:] = torch.tensor([1.0, -3.0])  # falls, though its first image gained
    shown = choose_prompts(PROMPTS[:20], Ranking(["some-judge"], "judge", before, after))
    assert shown.better == share_interval(torch.tensor([1.0] * 10 + [0.5] * 4 + [0.0] * 6))
    text = strips_of(shown, PROMPTS)[0].text
    assert "60 % of all 20 prompts got better (95 % interval 39 to 78)" in text and "Best cases, not typical" in text


@pytest.mark.parametrize("count", [1, 2, WHOLE])
def test_few_prompts_are_all_shown(count: int) -> None:
    ranking = judged([float(row) - 1 for row in range(count)])
    shown = choose_prompts(PROMPTS[:count], ranking)
    assert [one.row for one in shown.gained] == list(range(count))[::-1] and shown.drawn == ()
    (strip,) = strips_of(shown, PROMPTS)
    assert strip.title == ("The only prompt" if count == 1 else f"All {count} prompts")
    unscored = choose_prompts(PROMPTS[:count], None)
    assert [one.row for one in strips_of(unscored, PROMPTS)[0].prompts] == list(range(count))


def test_without_scores_prompts_are_drawn_and_it_is_said() -> None:
    shown = choose_prompts(PROMPTS, None)
    (strip,) = strips_of(shown, PROMPTS)
    assert len(strip.prompts) == WHOLE and strip.title == "Drawn at random"
    assert "There are no scores of single prompts to choose by." in strip.text and set(strip.gains) == {""}
    assert strips_in_short(shown) == "the same prompts and noise, before and after"


def test_what_is_recorded_comes_back_and_anything_else_is_passed_over() -> None:
    shown = choose_prompts(PROMPTS, judged(falling(len(PROMPTS))))
    record = json.loads(json.dumps(shown.as_dict()))
    again = recorded_prompts(record, len(PROMPTS))
    assert again is not None and again.as_dict() == record
    assert strips_of(again, PROMPTS) == strips_of(shown, PROMPTS)
    for strange in (
        None, [], "x", {}, record | {"prompts": 3}, record | {"role": "king"}, record | {"gained": [{"row": 0}]},
        record | {"drawn": [{"row": len(PROMPTS), "before": 0, "after": 0}]},
        record | {"drawn": [{"row": 0, "before": math.nan, "after": 0}]}, record | {"better": 3},
    ):  # fmt: skip
        assert recorded_prompts(strange, len(PROMPTS)) is None


def test_page_and_picture_show_what_the_run_recorded(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(3)
    images = {name: torch.rand(42, 2, 3, 16, 16, generator=random) for name in ("reference", "before", "after")}
    shown = choose_prompts(PROMPTS, judged(falling(42)))
    folder = write_run(tmp_path / "run", images=images, prompts=PROMPTS, summary={"picture": shown.as_dict()})
    page = write_report(folder).read_text(encoding="utf-8")
    strips = read_run(folder).strips
    assert strips == strips_of(shown, PROMPTS)
    inside = {one.row for strip in strips for one in strip.prompts}
    more = f"{42 - len(inside)} more prompts"
    places = [page.index(text) for text in ("The largest gains", "Best cases", "Drawn at random", more)]
    assert places == sorted(places) and page.count("<figcaption>") == 2 * STRIP + 42 - len(inside)
    first = page.index(f"<figcaption>{PROMPTS[0]} <small>0.0 \N{RIGHTWARDS ARROW} 42.0</small>")
    assert places[0] < first < places[2]
    first_bits = (folder / "before_after.png").read_bytes()
    write_report(folder)
    assert (folder / "before_after.png").read_bytes() == first_bits
    # An image of the largest gain, and none of a prompt that is in no strip.
    with Image.open(folder / "before_after.png") as picture:
        seen = {colour for _, colour in picture.convert("RGB").getcolors(10**7)}
    for row in range(42):
        pixels = images["after"][row, 0].mul(255).round().byte().flatten(1).T.tolist()
        share = sum(tuple(pixel) in seen for pixel in pixels) / len(pixels)
        assert share > 0.8 if row in inside else share < 0.5, row


def test_words_are_broken_between_them_and_none_is_lost() -> None:
    text = "The six prompts whose image gained most, and a word_that_is_wider_than_the_line by itself"
    lines = wrapped(text, 150, font(20))
    assert " ".join(lines) == text and len(lines) > 3
    assert all(font(20).getlength(line) <= 150 or " " not in line for line in lines)
