"""Score distillation sampling (Poole et al. 2022): every sample moves to where the reference would denoise it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from dipp_toolkit import Reference, Sample, TermContext, TermResult
from dipp_toolkit.schedules import add_noise
from dipp_toolkit.terms.integral_kl import guided_x0
from dipp_toolkit.terms.times import Sampling, UniformTimes, usable_draw


@dataclass
class ScoreDistillation:
    reference: Reference
    guidance_at: Callable[[int], float]
    sampling: Sampling = field(default_factory=UniformTimes)

    @classmethod
    def build(cls, context: TermContext) -> ScoreDistillation:
        return cls(context.reference, context.config.guidance_at, UniformTimes(*context.config.time_range))

    @torch.no_grad()
    def __call__(self, sample: Sample) -> TermResult:
        schedule, guidance = self.reference.denoiser.schedule, self.guidance_at(sample.step)
        draw = usable_draw(self.sampling, schedule, sample.x0, sample.random)
        x_t = add_noise(schedule, sample.x0, draw.noise, draw.t)
        gap = sample.x0 - guided_x0(self.reference, x_t, draw.t, sample.condition, guidance)
        return TermResult(value=gap.square().flatten(1).mean(1) / 2, grad=gap)
