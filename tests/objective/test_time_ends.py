"""Times 0 and 1: where a schedule has no noise or no image left, every number is still finite."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_toolkit import TrainConfig
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.diffusion.schedules import (
    LEAST,
    FlowMatching,
    Schedule,
    VariancePreserving,
    at_usable_times,
    discrete_times,
    schedule_from_config,
    usable_times,
)
from dipp_toolkit.diffusion.times import WEIGHTINGS, Draw, LogitNormalTimes, UniformTimes
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.objective.base import Sample, Term
from dipp_toolkit.objective.estimators.density_ratio import LearnedRatio
from dipp_toolkit.objective.terms.diffused_reward import DiffusedReward
from dipp_toolkit.objective.terms.divergence import noised
from dipp_toolkit.objective.terms.f_divergence import DiscriminatorRatio, FDivergence, Pool
from dipp_toolkit.objective.terms.integral_kl import IntegralKL
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.objective.terms.reward_sum import RewardSum
from dipp_toolkit.objective.terms.score_divergence import ScoreDivergence
from dipp_toolkit.rewards.loading import FunctionReward
from dipp_toolkit.training.assistant import LearnedAssistant, denoising_loss
from dipp_toolkit.training.run import train
from dipp_toolkit.utils.precision import pass_autocast
from tiny import LATENT_SHAPE, PROMPTS, tiny_pipeline

PLACES = (0.0, 1e-7, 1 - 1e-7, 1.0)
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SCHEDULES: dict[str, Schedule] = {
    "linear": schedule_from_config({"beta_schedule": "linear"}),
    "scaled linear": schedule_from_config(SCALED),
    "cosine": schedule_from_config({"beta_schedule": "squaredcos_cap_v2"}),
    "zero terminal SNR": schedule_from_config(SCALED | {"rescale_betas_zero_snr": True}),
    "flow": FlowMatching(),
    "flow with a shift": FlowMatching(shift=3.0),
}
FAMILIES = {
    "noise": {"prediction_type": "epsilon"},
    "noise, cosine": {"prediction_type": "epsilon", "beta_schedule": "squaredcos_cap_v2"},
    "noise, zero terminal SNR": {"prediction_type": "epsilon", "rescale_betas_zero_snr": True},
    "v, zero terminal SNR": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    "sample": {"prediction_type": "sample"},
    "flow": {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
}


@dataclass(frozen=True)
class AtTheEnds:
    """A `Sampling` of the ends themselves, and of what rounds to them."""

    low: float = 0.0

    def __call__(self, x0: Tensor, random: torch.Generator) -> Draw:
        return Draw(torch.tensor(PLACES).to(x0.dtype), torch.randn(x0.shape, generator=random))


def write_family(folder: Path, name: str) -> Path:
    tiny_pipeline(folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_schedule": "linear"} | FAMILIES[name]))
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DiffusersReference:
    return DiffusersReference.load(str(write_family(tmp_path_factory.mktemp("family") / "twin", request.param)))


def warm(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images[:, 0].mean((1, 2))


def terms_of(reference: DiffusersReference, assistant: LearnedAssistant, weighting: str) -> dict[str, Term]:
    reward = RewardTerm("warm", FunctionReward("warm", warm), reference.decode)
    rewards = RewardSum({"warm": reward}, {"warm": 1.0})
    rest: Any = (reference, assistant, 2.0, WEIGHTINGS[weighting], AtTheEnds())
    ratio = DiscriminatorRatio(4, 1, 1, Pool(8), LearnedRatio())
    return {
        "integral_kl": IntegralKL(*rest),
        "f_divergence": FDivergence(*rest, kind="forward_kl", ratio=ratio),
        "score_divergence": ScoreDivergence(*rest),
        "score_divergence, squared": ScoreDivergence(*rest, distance="squared"),
        "diffused_reward": DiffusedReward(*rest, rewards=rewards),
        "diffused_reward, three passes": DiffusedReward(*rest, rewards=rewards, steps=3, proxies=2),
    }


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_usable_times_are_nearly_all_and_leave_both_coefficients(schedule: Schedule) -> None:
    low, high = usable_times(schedule)
    assert 0 <= low <= 0.0011 and 0.99 < high <= 1
    ends = at_usable_times(schedule, torch.tensor(PLACES))
    assert (schedule.alpha(ends) >= LEAST).all() and (schedule.sigma(ends) >= LEAST).all()
    inside = discrete_times(schedule)[2:990]
    assert torch.equal(at_usable_times(schedule, inside), inside), "a time that has both is as it was drawn"


def test_a_schedule_without_a_hash_has_usable_times() -> None:
    @dataclass(frozen=True)
    class Own(FlowMatching):
        notes: list[str] = field(default_factory=list)

    assert usable_times(Own()) == usable_times(FlowMatching())


def test_a_schedule_with_no_usable_time_keeps_its_own() -> None:
    assert usable_times(VariancePreserving(torch.ones(5))) == (0.0, 1.0)


@pytest.mark.parametrize("sampling", [UniformTimes(0, 1), LogitNormalTimes(0, 1)])
@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_the_ends_of_a_sampling_are_times(sampling: UniformTimes, fraction: float) -> None:
    """A fraction of 1 is what the last slice may round to."""
    assert sampling.spread(torch.tensor([fraction])).item() == fraction


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=["fp32", "bf16"])
def test_every_divergence_is_finite_at_the_ends(reference: DiffusersReference, precision: torch.dtype | None) -> None:
    denoiser = reference.denoiser.trainable_copy()
    for parameter in denoiser.network.parameters():
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    assistant = LearnedAssistant(denoiser, torch.optim.SGD(denoiser.network.parameters(), 0.1))
    condition, random = reference.encode(PROMPTS), torch.Generator().manual_seed(2)
    x0 = torch.randn(4, *reference.latent_shape, generator=random)
    for weighting in WEIGHTINGS:
        for name, term in terms_of(reference, assistant, weighting).items():
            with pass_autocast("cpu", precision):
                result = term(Sample(x0, condition, x0, random))
            seen = [result.value, result.grad, *result.scores.values()]
            seen += [torch.as_tensor(detail) for detail in result.details.values()]
            bad = [index for index, tensor in enumerate(seen) if not torch.isfinite(tensor).all()]
            assert not bad, f"{name} with {weighting}"
            assert result.grad.any(), f"{name} with {weighting} has a gradient"
    with pass_autocast("cpu", precision):
        loss = denoising_loss(assistant, denoiser.schedule, x0, condition, AtTheEnds(), random)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([item.grad for item in denoiser.network.parameters() if item.grad is not None])
    assert math.isfinite(loss.item()) and 0 < norm.item() < math.inf


def test_what_a_term_is_told_of_times_is_what_the_sample_was_noised_at() -> None:
    schedule = FlowMatching()
    x0 = torch.randn(4, *LATENT_SHAPE)
    look = noised(schedule, Sample(x0, Condition(PROMPTS), x0, torch.Generator()), AtTheEnds())
    torch.testing.assert_close(look.x_t, (1 - look.t).reshape(-1, 1, 1, 1) * x0 + look.sigma * look.noise)
    assert look.t.tolist() == pytest.approx([1 / 999, 1 / 999, 998 / 999, 998 / 999])


@pytest.mark.first_case
@pytest.mark.parametrize("family", ["noise, zero terminal SNR", "StableDiffusion3Pipeline"])
@pytest.mark.parametrize("settings", [{"weighting": "uniform"}, {"time_sampling": "logit-normal"}])
def test_a_run_over_all_times_has_finite_numbers(tmp_path: Path, family: str, settings: dict[str, Any]) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    known = family in FAMILIES
    twin = str(write_family(tmp_path / "twin", family) if known else write_twin(family, tmp_path / "twin"))
    config = TrainConfig(
        generator=twin, reference=twin, prompts=str(tmp_path / "prompts.txt"), out=tmp_path / "run", steps=3,
        batch_size=4, eval_count=2, reference_steps=1, time_range=(0.0, 1.0), diagnose_every=2, device="cpu",
        readout=0.8 if known else 1, **settings,
    )  # fmt: skip
    train(config)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        assert "skipped" not in row and all(math.isfinite(number) for number in row.values())
