r"""The noise levels by which ComfyUI's samplers make a generator's image, and the scale of their first latent.

ComfyUI's models of diffusions ("EPS" and its kin in `comfy/model_sampling.py`) work on $x = x_t / \alpha_t$ with
$\sigma = \sigma_t / \alpha_t$:

- the network is given $x / \sqrt{\sigma^2 + 1}$, which is $x_t$, and the time whose $\log \sigma$ is nearest of 1000;
- the denoised sample is $x - \sigma \epsilon$ for noise, $x / (\sigma^2 + 1) - \sigma v / \sqrt{\sigma^2 + 1}$ for
  velocities, and the output itself for samples: $\hat x_0$ as everywhere;
- the sampler starts from $\sigma z$, or from $\sqrt{\sigma^2 + 1}\, z$ where $\sigma$ is the largest of the 1000, and
  the sampler `lcm` ends with the denoised sample. (So does Euler's step to $\sigma = 0$, but for the rounding of
  numbers as large as $\sigma$.)

So a generator that is given $\sigma_t z$ wants $x = \sigma z$, and one that is given $z$ wants
$\sqrt{\sigma^2 + 1}\, z$. Where the sampler would start from the other one, the first latent is made by the node
`AddNoise`, which multiplies noise with a number, and the sampler is told to add none.

Of several steps `lcm` makes each next latent as $\hat x_0 + \sigma z$ with fresh noise: multistep consistency
sampling. The sampler `euler` goes on with the noise that is there, to $x + (\sigma' - \sigma) (x - \hat x_0) / \sigma$:
the deterministic step. Flow matching needs nothing of this: at $\sigma = 1$ the latent is the noise, and a step to 0
is $x_1 - u$.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...diffusion.schedules import FlowMatching, VariancePreserving, schedule_from_config
from ...errors import RequestError
from ..generator import DiffusersGenerator
from .facts import ComfyModel

TIMES = 1000
CLOSE = 1e-5
"""Relative difference up to which ComfyUI takes a sigma for its largest."""
SAMPLER, DETERMINISTIC = "lcm", "euler"
"""For `KSamplerSelect`: with fresh noise between several steps, and without."""
DIGITS = 7
"""After the point: `ManualSigmas` reads no exponents."""


@dataclass(frozen=True)
class ComfyNoise:
    r"""What a workflow tells ComfyUI's sampler.

    Attributes:
        sigmas: $\sigma$ of every step, and 0.
        first: what noise is multiplied with to make the first latent, where the sampler's own start is another; None
            where it is right.
        sampler: for `KSamplerSelect`.
        sampling: for `ModelSamplingDiscrete`, where the network predicts something else than its class says.
    """

    sigmas: tuple[float, ...]
    first: float | None
    sampler: str
    sampling: str | None

    @property
    def text(self) -> str:
        """The sigmas as `ManualSigmas` reads them."""
        return ", ".join(f"{sigma:.{DIGITS}f}" for sigma in self.sigmas)


def comfy_sigmas(model: ComfyModel) -> Float[Tensor, "times"]:
    r"""$\sigma$ of the 1000 times of a diffusion in ComfyUI, the least noise first.

    Args:
        model: of a diffusion.
    """
    if model.betas == "scaled_linear":
        betas = torch.linspace(model.beta_start**0.5, model.beta_end**0.5, TIMES, dtype=torch.float64) ** 2
    else:
        betas = torch.linspace(model.beta_start, model.beta_end, TIMES, dtype=torch.float64)
    alphas_cumprod = torch.cumprod(1 - betas, 0)
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt().float()


def comfy_noise(generator: DiffusersGenerator, model: ComfyModel) -> ComfyNoise:
    """How a generator's image is made.

    Args:
        generator: of one step or several.
        model: what ComfyUI makes of its network.

    Raises:
        RequestError: ComfyUI's noise levels are others than the generator's, or its nodes know no such prediction.
    """
    schedule = schedule_from_config(generator.scheduler_config, generator.latent_shape)
    sampler = SAMPLER if generator.steps == 1 or generator.step_noise == "fresh" else DETERMINISTIC
    if isinstance(schedule, FlowMatching) != (model.betas is None):
        raise RequestError(
            "ComfyUI takes networks of this class for "
            f"{'flow matching' if model.betas is None else 'diffusions'}, and this generator is the other. Use "
            "--to single-file."
        )
    if isinstance(schedule, FlowMatching):
        times = torch.tensor(generator.times)
        sigmas = schedule.sigma(times).tolist()
        return ComfyNoise((*sigmas, 0.0), None, sampler, None)
    assert isinstance(schedule, VariancePreserving)
    table = comfy_sigmas(model)
    levels = [_level(schedule, time, table) for time in generator.times]
    unit = math.sqrt(levels[0] ** 2 + 1)
    several = generator.steps > 1 and generator.step_noise == "fresh"
    wanted = unit if several or generator.input_scale == "unit" else levels[0]
    largest = float(table[-1])
    own = unit if levels[0] > largest or math.isclose(levels[0], largest, rel_tol=CLOSE) else levels[0]
    return ComfyNoise((*levels, 0.0), None if own == wanted else wanted, sampler, _sampling(generator, model))


def _level(schedule: VariancePreserving, time: float, table: Tensor) -> float:
    """ComfyUI's sigma of a time of the generator.

    Raises:
        RequestError: its network would be told another time than the generator's.
    """
    at = torch.tensor([time])
    index = int(schedule.grid_index(at))
    alpha, sigma = schedule.alpha(at).item(), schedule.sigma(at).item()
    level = sigma / alpha if alpha > 0 else math.inf
    nearest = int((table.double().log() - math.log(level)).abs().argmin()) if math.isfinite(level) else -1
    if nearest != index:
        told = f"where sigma / alpha is {level:.4g}, and ComfyUI's nearest time to that is {nearest} of {TIMES - 1}"
        raise RequestError(
            f"The generator is read at timestep {index}, {told if nearest >= 0 else 'where no signal is left'}: it was "
            "trained with other noise levels than ComfyUI has for networks of this class, and no stock node sets them. "
            "Use --to single-file with a program that reads the scheduler."
        )
    return level


def _sampling(generator: DiffusersGenerator, model: ComfyModel) -> str | None:
    """What `ModelSamplingDiscrete` is to be told; None where ComfyUI's own choice is right."""
    words = {"epsilon": "eps", "v_prediction": "v_prediction", "sample": "x0"}
    prediction: Any = generator.scheduler_config.get("prediction_type", "epsilon")
    return None if prediction == model.prediction else words[prediction]
