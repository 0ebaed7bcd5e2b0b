"""Generators of several steps: the times at which they read out, and the noises between them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from dipp_toolkit.diffusion.schedules import schedule_from_config
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.few_steps import noises_of
from dipp_toolkit.models.stock_schedulers import (
    few_step_scheduler,
    one_step_scheduler,
    recorded_steps,
    step_times,
    stock_scheduler,
)
from dipp_toolkit.models.trigflow_steps import intermediate_timesteps
from tiny import LATENT_SHAPE

COSINE = {"_class_name": "DDIMScheduler", "beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}
SOLVER = {
    "_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction", "use_flow_sigmas": True,
    "flow_shift": 3.0, "num_train_timesteps": 1000,
}  # fmt: skip
CIRCLE = {"_class_name": "SCMScheduler", "num_train_timesteps": 1000, "sigma_data": 0.5}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


def on_grid(config: Mapping[str, Any], readout: float, steps: int) -> list[int]:
    """The network's times, as the schedule tells them."""
    times = torch.tensor(step_times(config, readout, steps, LATENT_SHAPE))
    return schedule_from_config(config).network_time(times).tolist()


def test_times_are_those_of_the_stock_scheduler() -> None:
    assert on_grid(COSINE, 1.0, 4) == [999, 749, 499, 249]  # DMD2's
    assert on_grid(COSINE, 1.0, 2) == [999, 499]
    assert on_grid(COSINE, 399 / 999, 4) == [399, 299, 199, 99]
    assert on_grid(COSINE, 0.3, 1) == [300]
    assert on_grid(FLOW, 1.0, 4) == pytest.approx([1000, 750, 500, 250], rel=1e-6)
    for steps in range(2, 9):
        for readout in (1.0, 0.625, 0.1):
            scheduler = few_step_scheduler(COSINE, readout, steps)
            scheduler.set_timesteps(steps)
            assert on_grid(COSINE, readout, steps) == scheduler.timesteps.tolist()
            assert 0 <= round(readout * 999) - scheduler.timesteps[0].item() < steps, "the first is the read-out"


@pytest.mark.parametrize("steps", range(2, 9))
def test_the_consistency_boundary_is_nothing_at_these_times(steps: int) -> None:
    for readout in (1.0, (2 * steps - 1) / 999):  # the last leaves two training times a step
        scheduler = few_step_scheduler(COSINE, readout, steps)
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps[-1] >= 1
        skip, out = scheduler.get_scalings_for_boundary_condition_discrete(scheduler.timesteps[-1])
        assert skip < 3e-9 and out == 1


@pytest.mark.parametrize("steps", range(2, 9))
def test_flow_pipelines_get_the_same_noise_levels_however_they_ask(steps: int) -> None:
    scheduler = few_step_scheduler(FLOW, 1.0, steps)
    scheduler.set_timesteps(steps)  # as Stable Diffusion 3 does
    plain = scheduler.sigmas.clone()
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=1.15)  # as Flux does
    torch.testing.assert_close(plain, scheduler.sigmas, rtol=0, atol=1e-6)
    ours = schedule_from_config(FLOW).sigma(torch.tensor(step_times(FLOW, 1.0, steps, LATENT_SHAPE)))
    torch.testing.assert_close(ours, plain[:-1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", range(1, 9))
def test_trigflows_angles_are_those_of_the_stock_call(steps: int) -> None:
    scheduler = stock_scheduler(CIRCLE, 1.0, steps)
    between = 1.3 if steps == 2 else None
    scheduler.set_timesteps(steps, max_timesteps=1.57080, intermediate_timesteps=between)
    angles = scheduler.timesteps[:-1].tolist()
    assert on_grid(CIRCLE, 1.0, steps) == pytest.approx(angles, abs=1e-5)
    assert intermediate_timesteps(steps) == between and scheduler.config.sigma_data == 0.5
    saved = {**scheduler.config, "_class_name": "SCMScheduler"}
    assert recorded_steps(saved) == steps and on_grid(saved, 1.0, steps) == on_grid(CIRCLE, 1.0, steps)
    with pytest.raises(ValueError, match="cannot be larger"):
        scheduler.set_timesteps(steps + 1, intermediate_timesteps=None)


def test_a_solver_of_flow_sigmas_is_exported_as_eulers_step_and_consistency_steps() -> None:
    single, several = stock_scheduler(SOLVER, 1.0, 1), stock_scheduler(SOLVER, 1.0, 4)
    assert schedule_from_config({**single.config, "_class_name": type(single).__name__}) == schedule_from_config(SOLVER)
    single.set_timesteps(1)
    assert single.sigmas.tolist() == [1, 0] and single.timesteps.tolist() == [1000]
    several.set_timesteps(4)
    assert on_grid(SOLVER, 1.0, 4) == pytest.approx(several.timesteps.tolist())


@pytest.mark.parametrize("config", [COSINE, FLOW], ids=["cosine", "flow"])
@pytest.mark.parametrize("steps", range(2, 9))
def test_a_saved_scheduler_says_its_steps_and_times(config: Mapping[str, Any], steps: int, tmp_path: Path) -> None:
    scheduler = few_step_scheduler(config, 1.0, steps)
    scheduler.save_pretrained(tmp_path)
    saved = type(scheduler).load_config(tmp_path)
    assert recorded_steps(saved) == steps
    assert on_grid(saved, 1.0, steps) == pytest.approx(on_grid(config, 1.0, steps), rel=1e-6)
    single = one_step_scheduler(saved, 1.0)  # and its first step alone can still be exported
    single.set_timesteps(1)
    assert float(single.timesteps[0]) == pytest.approx(on_grid(saved, 1.0, 1)[0])


def test_other_schedulers_are_of_one_step() -> None:
    assert recorded_steps(COSINE) == recorded_steps(FLOW) == recorded_steps(CIRCLE) == recorded_steps({}) == 1
    assert recorded_steps({"_class_name": "LCMScheduler", "original_inference_steps": 50}) == 1
    assert recorded_steps({"_class_name": "FlowMatchLCMScheduler", "shift_terminal": None}) == 1


@pytest.mark.parametrize(
    ("config", "readout", "message"),
    [
        (COSINE, 0.006, r"leaves 7 training times, too few for 4 steps. Set a larger readout"),
        (COSINE | {"prediction_type": "epsilon"}, 1.0, r"divided by alpha = .*Set a smaller readout"),
        (FLOW, 0.5, r"starts at time 1, and this generator reads out at 0.5.*Set readout to 1"),
        (CIRCLE, 0.5, r"TrigFlow pipeline starts at time 1.*reads out at 0.5.*Set readout to 1"),
        (FLOW | {"_class_name": "FlowMatchHeunDiscreteScheduler"}, 1.0, r"FlowMatchHeun.* cannot be exported"),
    ],
)
def test_what_no_stock_scheduler_can_express_is_a_sentence(
    config: Mapping[str, Any], readout: float, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        few_step_scheduler(config, readout, 4)


def test_noises_belong_to_the_sample_and_not_to_its_place() -> None:
    first = torch.randn(6, 4, 8, 8)
    all_of_them = noises_of(first, 3)
    alone = noises_of(first[4:5], 3)
    assert [tuple(item.shape) for item in all_of_them] == [(6, 4, 8, 8)] * 3
    for together, single in zip(all_of_them, alone, strict=True):
        assert torch.equal(together[4:5], single)
    assert torch.equal(noises_of(first.flip(0), 3)[1], all_of_them[1].flip(0))
    assert noises_of(first.double(), 1)[0].dtype == torch.float64


def test_noises_are_standard_normal_and_independent() -> None:
    first = torch.randn(400, 4, 8, 8)
    rows = [item.flatten() for item in (first, *noises_of(first, 3))]
    spread = 4 / math.sqrt(len(rows[0]))
    for row in rows:
        assert abs(row.mean()) < spread and abs(row.var() - 1) < 2 * spread
    correlations = torch.corrcoef(torch.stack(rows)) - torch.eye(4)
    assert correlations.abs().max() < spread
