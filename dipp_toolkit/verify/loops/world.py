"""The world that a training loop is run in: a reference, a generator and a fake score whose laws are Gaussian."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...objective.gaussians import Gaussian
from ..cases import CASES, Case, make_reference
from .adapter import Adapter
from .chain import Chain
from .levels import TRAINING_TIMES, Levels
from .networks import Exact, FakeScoreNetwork, GeneratorNetwork, ReferenceNetwork
from .recording import Recorder

BATCH = 1024
"""Samples a pass, for loops that ask."""


def trial_laws(data: Gaussian) -> tuple[Gaussian, Gaussian]:
    """Two laws for the generator, unlike each other and unlike the data. Every update has one or the other, at random:
    what was kept from an earlier update then has the wrong law."""
    first = torch.tensor([[0.9, 0.1, 0.0], [0.25, 0.8, -0.1], [0.1, -0.3, 0.7]], dtype=torch.float64)
    second = torch.tensor([[0.5, 0.2, 0.1], [-0.3, 0.9, 0.2], [0.1, 0.3, 0.5]], dtype=torch.float64)
    moves = torch.tensor([[-0.9, 0.7, 0.5], [0.6, 0.9, -0.8]], dtype=torch.float64)
    return (
        Gaussian(data.mean + moves[0], first @ first.mT),
        Gaussian(data.mean + moves[1], second @ second.mT),
    )


class Stage:
    """What is behind a world, and no business of the loop's: laws, levels, and the networks' parameters.

    Attributes:
        reference: the reference's laws.
        levels: noise levels by timestep.
        chain: how the generator's steps follow each other.
        laws: of the generator's samples, by number.
        reference_network: the world's `reference`.
        generator: the world's.
        fake_score: the world's.
        recorder: sees them.
    """

    def __init__(self, adapter: Adapter, recorder: Recorder) -> None:
        self.reference, self.levels, self.recorder = make_reference(), Levels(adapter.schedule), recorder
        timesteps = torch.tensor(adapter.timesteps, dtype=torch.float64)
        self.chain = Chain(*self.levels(timesteps), adapter.sampler)
        self.laws = trial_laws(self.reference.given)
        exact = Exact(self.reference.given, self.reference.empty)
        settings = self.levels, adapter.prediction, recorder
        self.reference_network = ReferenceNetwork(exact, *settings).eval()
        self.generator = GeneratorNetwork(timesteps, *settings)
        self.fake_score = FakeScoreNetwork(*settings)
        recorder.modules = {"generator": self.generator, "fake_score": self.fake_score}
        self.set_law(0)

    def set_law(self, number: int) -> None:
        """Give the generator one of its laws, and the fake score its exact score."""
        law = self.laws[number]
        matrices, biases = self.chain.solve(law)
        with torch.no_grad():
            self.generator.matrix.copy_(matrices)
            self.generator.bias.copy_(biases)
        # Without a prompt it says something else, so that guidance on the fake score is seen.
        shift = 0.7 * (self.reference.empty.mean - self.reference.given.mean)
        self.fake_score.exact = Exact(law, Gaussian(law.mean + shift, law.covariance))
        self.recorder.law = number


class LoopWorld:
    r"""What a loop is given. Latents are `(batch, 3, 1, 1)`, images of one pixel; networks answer in `prediction`.

    Attributes:
        generator: trainable, called as `generator(x_t, timestep, condition)`.
        fake_score: trainable, the score of the generator's samples, called likewise.
        reference: frozen, called likewise.
        prediction: what the networks' outputs are, as the adapter asked: `epsilon`, `v_prediction`, `sample` ($x_0$) or
            `velocity` ($\epsilon - x_0$).
        timesteps: of the generator's steps, the noisiest first, as the adapter asked; `(steps,)`.
        guidance: $\alpha_{cfg}$ of this case, in the convention
            $\hat x_0(\varnothing) + \alpha_{cfg} (\hat x_0(c) - \hat x_0(\varnothing))$; 1 for none.
        reward_scale: $\alpha_{rew}$ of this case; 0 where it has no reward.
        batch_size: a good number of samples for a pass.
        num_train_timesteps: 1000.
    """

    def __init__(self, case: Case, adapter: Adapter, stage: Stage) -> None:
        self._case, self._levels, self._given = case, stage.levels, stage.reference.given
        self.prediction = adapter.prediction
        self.timesteps = torch.tensor(adapter.timesteps, dtype=torch.float64)
        self.guidance, self.reward_scale = case.guidance, case.reward_scale
        self.batch_size, self.num_train_timesteps = BATCH, TRAINING_TIMES
        self.generator: nn.Module = stage.generator
        self.fake_score: nn.Module = stage.fake_score
        self.reference: nn.Module = stage.reference_network

    @cached_property
    def alphas_cumprod(self) -> Float[Tensor, " times"]:
        r"""$\alpha^2$ of the timesteps 0 to 999, float32, where the schedule is `vp`."""
        return self._levels.alphas_cumprod.float()

    @cached_property
    def scheduler(self) -> Any:
        """The schedule as diffusers' `DDPMScheduler`, or `FlowMatchEulerDiscreteScheduler` where it is `flow`."""
        from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

        if self._levels.forward == "flow":
            return FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAINING_TIMES)
        return DDPMScheduler(
            TRAINING_TIMES, 0.00085, 0.012, "scaled_linear", prediction_type=self.prediction, clip_sample=False
        )

    def alpha(self, timestep: Tensor) -> Float[Tensor, "batch 1 1 1"]:
        """Signal coefficient of each timestep, float32, to be multiplied with latents."""
        return self._levels(timestep)[0].reshape(-1, 1, 1, 1).float()

    def sigma(self, timestep: Tensor) -> Float[Tensor, "batch 1 1 1"]:
        """Noise coefficient of each timestep, float32, to be multiplied with latents."""
        return self._levels(timestep)[1].reshape(-1, 1, 1, 1).float()

    def noise(self, batch: int) -> Float[Tensor, "batch 3 1 1"]:
        """Standard normal noise, which `torch.randn(batch, 3, 1, 1)` is as well."""
        return torch.randn(batch, 3, 1, 1)

    def data(self, batch: int) -> Float[Tensor, "batch 3 1 1"]:
        """Samples of the reference with a prompt, for loops that read a data set."""
        factor = torch.linalg.cholesky(self._given.covariance)
        rows = self._given.mean + torch.randn(batch, 3, dtype=torch.float64) @ factor.mT
        return rows.float().reshape(batch, 3, 1, 1)

    def prompt(self, batch: int) -> Float[Tensor, "batch 1"]:
        """The condition with a prompt."""
        return torch.ones(batch, 1)

    def no_prompt(self, batch: int) -> Float[Tensor, "batch 1"]:
        """The condition of the empty prompt."""
        return torch.zeros(batch, 1)

    def reward(self, images: Tensor) -> Float[Tensor, " batch"]:
        """The case's reward of latents, linear in them; higher is better. Zero where the case has none."""
        reward = self._case.reward or CASES["linear"].reward
        assert reward is not None
        scores = reward(images.double(), ())
        return (scores if self._case.reward else 0 * scores).to(images.dtype)
