"""Bad numbers: what is skipped, what is counted, when a run stops, and what it says then."""

from __future__ import annotations

import math

import pytest
import torch

from dipp_toolkit.errors import RunError
from dipp_toolkit.training.guard import LEAST, Guard
from dipp_toolkit.training.optim import DOUBLE_AFTER, LossScale


def settled(**options: float) -> Guard:
    guard = Guard(**options)  # type: ignore[arg-type]
    for _ in range(LEAST):
        assert guard.spiked("generator", 2.0) == ""
    return guard


def test_a_spike_is_many_times_the_usual_norm() -> None:
    guard = settled(spike=100.0)
    assert guard.spiked("generator", 150.0) == ""
    assert "201 times the usual" in settled(spike=100.0).spiked("generator", 402.0)


def test_what_was_skipped_is_not_usual() -> None:
    guard = settled(spike=100.0)
    for _ in range(5):
        assert guard.spiked("generator", 1e6)
    assert guard.norms["generator"].value == pytest.approx(2.0)


def test_networks_have_norms_of_their_own_and_the_first_say_nothing() -> None:
    guard = settled(spike=10.0)
    assert guard.spiked("assistant", 1e6) == ""
    assert Guard(spike=10.0).spiked("generator", 1e9) == ""


def test_a_norm_of_zero_is_no_measure() -> None:
    guard = Guard(spike=10.0)
    for _ in range(2 * LEAST):
        assert guard.spiked("generator", 0.0) == ""
    assert guard.norms["generator"].value is None


def test_steps_in_a_row_end_the_run_and_one_good_step_between_does_not() -> None:
    guard = Guard(patience=3)
    for step in range(1, 19):
        if step % 3:
            guard.skip("the reward said nothing")
        assert bool(guard.end_step(step)) == bool(step % 3)
    for step in (19, 20):
        guard.skip("the reward said nothing")
        assert guard.end_step(step) == ["the reward said nothing"]
    guard.skip("the decoder broke")
    with pytest.raises(RunError, match="Bad numbers in 3 steps in a row, 19 to 21: the decoder broke"):
        guard.end_step(21)


def test_a_guard_goes_on_where_it_was() -> None:
    guard, again = settled(), Guard()
    guard.skip("x")
    guard.end_step(1)
    again.load_state_dict(guard.state_dict())
    assert (again.in_a_row, again.skipped) == (1, 1)
    assert again.norms["generator"].value == guard.norms["generator"].value


def test_a_loss_scale_halves_on_overflow_and_doubles_after_patience() -> None:
    scale = LossScale(True, scale=8.0)
    assert scale.overflowed(finite=False) and scale.factor == 4
    for _ in range(DOUBLE_AFTER):
        assert not scale.overflowed(finite=True)
    assert scale.factor == 8


def test_a_scale_of_one_is_not_to_blame() -> None:
    assert not LossScale(True, scale=1.0).overflowed(finite=False)
    assert not LossScale(False).overflowed(finite=False) and LossScale(False).factor == 1


def test_unscaling_undoes_the_factor() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    scale = LossScale(True, scale=1024.0)
    (weight.square().sum() * scale.factor).backward()
    scale.unscale([weight])
    assert weight.grad is not None and weight.grad.tolist() == [2.0, 4.0]
    assert math.isclose(scale.factor, 1024.0)
