"""One spelling of a name and one minus sign, wherever people read."""

from __future__ import annotations

import math

import pytest

from dipp_toolkit.prompts.subsets import counted_prompts
from dipp_toolkit.report.templates import breakable, command_line
from dipp_toolkit.utils.messages import Spelling, number_text


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-0.5, ".2f", "−0.50"), (0.5, "+.1f", "+0.5"), (-0.04, ".1f", "0.0"), (-0.0, "+.2f", "0.00"),
        (-1e-9, ".3g", "−1e−09"), (-12345.6, "+,.1f", "−12,345.6"), (-math.inf, ".3g", "−inf"),
        (2.7, "#.3g", "2.70"), (585.0, "#.3g", "585"),
    ],
)  # fmt: skip
def test_numbers_have_a_true_minus_and_zero_has_no_sign(value: float, form: str, text: str) -> None:
    assert number_text(value, form) == text


def test_a_name_has_one_spelling_in_lists_and_in_sentences() -> None:
    spelling = Spelling(["./blue.py:blueness", "emoji-clip", "http://127.0.0.1:8700/hps", "diffusers:models/mine/"])
    assert spelling.name("./blue.py:blueness") == "blue.py:blueness"
    assert spelling.name("http://127.0.0.1:8700/hps") == "hps" and spelling.name("diffusers:models/mine/") == "mine"
    said = spelling.text("./blue.py:blueness rose while emoji-clip fell (cosine -0.60, [-.5, 1], not 3-4 or a-1).")
    assert said == "blue.py:blueness rose while emoji-clip fell (cosine −0.60, [−.5, 1], not 3-4 or a-1)."
    assert Spelling(["liked"]).text("cells/liked and x.liked") == "cells/liked and x.liked"


def test_two_names_with_the_same_last_part_stay_apart() -> None:
    spelling = Spelling(["a/score.py:f", "b/score.py:f", "./c/other.py:g"])
    assert [spelling.name(name) for name in ("a/score.py:f", "b/score.py:f")] == ["a/score.py:f", "b/score.py:f"]
    assert spelling.text("a/score.py:f beside ./c/other.py:g") == "a/score.py:f beside other.py:g"


def test_a_name_inside_a_longer_path_is_no_name() -> None:
    spelling = Spelling(["x/f"])
    assert spelling.text("runs/x/f, x/fg and x/f.") == "runs/x/f, x/fg and f."


@pytest.mark.parametrize(
    ("count", "name", "text"),
    [
        (8, "data/prompts.csv", "8 prompts of prompts.csv"),
        (1, "emoji-heldout", "1 prompt of emoji-heldout"),
        (24, "emoji-heldout?count=24", "24 prompts of emoji-heldout"),
        (1632, "parti?category=Animals&count=2000&seed=3", "1,632 prompts of parti, category Animals, sample 3"),
        (5, "parti?category=Animals,People", "5 prompts of parti, categories Animals and People"),
        (5, "what?.txt", "5 prompts of what?.txt"),
        (5, "", "5 prompts"),
    ],
)
def test_prompts_are_named_with_their_count(count: int, name: str, text: str) -> None:
    assert counted_prompts(count, name) == text


def test_long_names_break_at_their_joints() -> None:
    assert breakable("reward_scale=0.5 a<b/c") == "reward_<wbr>scale=0.<wbr>5 a&lt;b/<wbr>c"


def test_flags_of_a_command_are_whole() -> None:
    said = command_line("dipp train --batch-size 4 --set a-b=<c>")
    flags = [f'<span class="whole">--{name}</span>' for name in ("batch-size", "set")]
    assert said == f"dipp train {flags[0]} 4 {flags[1]} a-b=&lt;c&gt;"
