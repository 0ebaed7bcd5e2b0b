"""Agreement with votes, its interval over prompts, and the table of odds, against values known by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dipp_toolkit.preferences.fit.head import GATE, GroupedHead
from dipp_toolkit.preferences.fit.measure import agreement_of


def test_a_tie_of_scores_is_half_a_vote() -> None:
    found = agreement_of(torch.tensor([1.0, 1.0, -1.0, 0.0, 1.0]), ["a", "a", "b", "b", "c"])
    assert found.accuracy.mean == pytest.approx((1 + 1 + 0 + 0.5 + 1) / 5)
    assert (found.votes, found.prompts) == (5, 3)
    assert 0 <= found.accuracy.low <= found.accuracy.mean <= found.accuracy.high <= 1


def test_prompts_that_are_all_alike_have_wilsons_interval() -> None:
    found = agreement_of(torch.full((10,), 2.0), [str(row) for row in range(10)]).accuracy
    z2 = 1.959963984540054**2
    assert found.low == pytest.approx(10 / (10 + z2))
    assert (found.mean, found.high) == (1.0, 1.0)


def test_the_table_says_what_was_said_and_what_was_found() -> None:
    odds = torch.tensor([math.log(0.75 / 0.25)] * 3 + [-math.log(0.75 / 0.25)] + [math.log(0.95 / 0.05)])
    seventy, ninety = agreement_of(odds, list("abcde")).calibration
    assert (seventy.low, seventy.votes, seventy.found) == (0.7, 4, 0.75)
    assert seventy.said == pytest.approx(0.75)
    assert (ninety.votes, ninety.found) == (1, 1.0)
    assert ninety.said == pytest.approx(0.95)


def test_scores_without_odds_cost_log_2() -> None:
    assert agreement_of(torch.zeros(4), list("abcd")).loss == pytest.approx(math.log(2))


def test_a_heads_units_are_deviations_within_prompts() -> None:
    head = GroupedHead({"one": 1, "two": 2})
    prompts = torch.tensor([0, 0, 1, 1])
    features = torch.tensor([[0.0, 5.0, 1.0], [2.0, 5.0, 1.0], [10.0, 9.0, 1.0], [12.0, 9.0, 1.0]])
    head.set_units(features, prompts)
    assert head.unit[0].item() == pytest.approx(math.sqrt(2))  # two prompts of +-1: 4 / (4 - 2)
    assert head.unit[1].item() == pytest.approx(1e-3 * features[:, 1].std().item() * math.sqrt(2), rel=1e-3)
    assert torch.equal(head(features), torch.zeros(4))
    with torch.no_grad():
        head.weight[0] = 1.0
    assert head(features)[1].item() == pytest.approx(GATE * (2 - 6) / math.sqrt(2))
