"""The adapter of the toolkit's own engine: `dipp verify --loop dipp_toolkit.verify.loops.own_loop:FewSteps`.

It is the code that trains images: `Engine`, `LearnedAssistant`, and the objective as settings build it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...config import make_config
from ...diffusion.condition import Condition
from ...diffusion.denoiser import Denoiser
from ...diffusion.schedules import FlowMatching, Schedule, VariancePreserving, expand_like
from ...diffusion.times import UniformTimes
from ...errors import RequestError
from ...models.few_steps import run_steps
from ...objective.build import build_terms
from ...protocols import Latents
from ...training.assistant import LearnedAssistant
from ...training.engine import Engine
from ...utils.images import Images
from ..network import GIVEN, call_affine
from ..training import PROMPT
from .levels import Forward
from .world import LoopWorld


def _schedule(forward: Forward, world: LoopWorld) -> Schedule:
    return FlowMatching() if forward == "flow" else VariancePreserving(world.alphas_cumprod)


@dataclass
class WorldReference:
    """The world's reference in the role of a `Reference`."""

    denoiser: Denoiser
    latent_shape: tuple[int, ...] = (3, 1, 1)

    def encode(self, prompts: Sequence[str]) -> Condition:
        return Condition(tuple(prompts), {GIVEN: torch.tensor([[float(prompt != "")] for prompt in prompts])})

    def null(self, batch: int) -> Condition:
        return self.encode([""] * batch)

    def decode(self, latents: Latents) -> Images:
        return latents

    def sample(self, condition: Condition, noise: Latents, steps: int, guidance: float) -> Latents:
        raise RequestError("The reference cannot be sampled while a loop is checked.")

    def to(self, device: torch.device | str) -> WorldReference:
        return self


@dataclass
class WorldGenerator:
    """The world's generator in the role of a `FewStepGenerator`.

    Attributes:
        denoiser: over its network.
        times: of its steps, in [0, 1].
    """

    denoiser: Denoiser
    times: tuple[float, ...]
    latent_shape: tuple[int, ...] = (3, 1, 1)

    @property
    def network(self) -> nn.Module:
        return self.denoiser.network

    @property
    def steps(self) -> int:
        return len(self.times)

    def _time(self, x: Tensor, step: int) -> Tensor:
        return torch.full((len(x),), self.times[step], dtype=torch.float64)

    def read_out(self, x_t: Latents, step: int, condition: Condition) -> Latents:
        return self.denoiser.predict_x0(x_t, self._time(x_t, step), condition)

    def noised(self, x0: Latents, noise: Latents, step: int) -> Latents:
        t, schedule = self._time(x0, step), self.denoiser.schedule
        return expand_like(schedule.alpha(t), x0) * x0 + expand_like(schedule.sigma(t), x0) * noise

    def generate(self, noise: Latents, condition: Condition) -> Latents:
        between = [torch.randn_like(noise) for _ in self.times[1:]]
        return run_steps(self, noise, between, condition)

    def save_pretrained(self, folder: Path, assistant: nn.Module | None = None) -> None:
        raise RequestError("An affine map cannot be saved as a pipeline.")


@dataclass(frozen=True)
class WorldReward:
    """The world's reward in the role of a `Reward`."""

    world: LoopWorld
    differentiable: bool = True

    def __call__(self, images: Images, prompts: Sequence[str]) -> Tensor:
        return self.world.reward(images)


class OneStep:
    """A generator of one step, on all cases."""

    timesteps: tuple[float, ...] = (999,)
    prediction = "epsilon"
    schedule: Forward = "vp"
    cases: tuple[str, ...] = ("distillation", "guidance", "linear")
    supervise: Literal["last", "every"] = "last"

    @staticmethod
    def weighting(alpha: Tensor, sigma: Tensor) -> Tensor:
        """`uniform`: $w(t) = 1$."""
        return (alpha / sigma).square()

    def __init__(self, world: LoopWorld) -> None:
        schedule = _schedule(self.schedule, world)
        self.world = world

        def denoiser(network: nn.Module) -> Denoiser:
            return Denoiser(network, schedule, world.prediction, call_affine)

        self.reference = WorldReference(denoiser(world.reference))
        last = 1000 if self.schedule == "flow" else 999
        generator = WorldGenerator(denoiser(world.generator), tuple(time / last for time in self.timesteps))
        config = make_config(
            {
                "weighting": "uniform",
                "time_range": (0.1, 0.9),
                "guidance": world.guidance,
                "reward_scale": world.reward_scale,
                "rewards": {"world": 1.0} if world.reward_scale else {},
            }
        )
        assistant = LearnedAssistant(
            denoiser(world.fake_score), torch.optim.Adam(world.fake_score.parameters()), UniformTimes(), math.inf
        )
        rewards: dict[str, Any] = {"world": WorldReward(world)} if world.reward_scale else {}
        self.engine = Engine(
            generator,
            torch.optim.Adam(world.generator.parameters()),
            assistant,
            build_terms(config, self.reference, assistant, rewards, torch.device("cpu")),
            torch.Generator().manual_seed(0),
            assistant_rounds=2,
            supervise=self.supervise,
        )

    def step(self) -> None:
        """Two assistant updates and one of the generator."""
        condition = self.reference.encode([PROMPT] * self.world.batch_size)
        self.engine.step([condition] * (self.engine.assistant_rounds + 1))

    def sample(self, batch: int) -> Tensor:
        """What a finished generator does."""
        generator = self.engine.generator
        return generator.generate(torch.randn(batch, 3, 1, 1), self.reference.encode([PROMPT] * batch))


class FewSteps(OneStep):
    """Four steps, each supervised on its own, as DMD2 does."""

    timesteps = (999, 749, 499, 249)
    cases = ("distillation", "guidance")
    supervise: Literal["last", "every"] = "every"


class ThroughSteps(FewSteps):
    """Four steps of flow matching, the loss at the last one and its gradient through all."""

    timesteps = (1000, 750, 500, 250)
    prediction = "velocity"
    schedule = "flow"
    supervise = "last"
