r"""Noise schedules: $x_t = \alpha_t x_0 + \sigma_t \epsilon$ with $\epsilon \sim N(0, I)$.

Two families cover the field: variance preserving schedules on a grid of training times (every diffusers DDPM-style
scheduler) and flow matching on the straight line. TrigFlow's circle, of continuous-time consistency models, is variance
preserving without a grid. What a network predicts is not the schedule's business; see
`dipp_toolkit.diffusion.predictions`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError
from .scheduler_classes import TRIGFLOW, check_schedule_readable, class_config

LEAST = 1e-3
r"""The least $\alpha_t$ and $\sigma_t$ that anything is divided by.

Flow matching's thousand training times come as near to either end and no nearer. Where nothing is left of the noise or
of the image is beyond it: both ends of flow matching, the noisy one of a zero terminal SNR and of a cosine. Stable
Diffusion's alpha ends at 0.07, DDPM's at 0.006.
"""


@runtime_checkable
class Schedule(Protocol):
    """Knows alpha, sigma and the network's own time for every time in `[0, 1]`.

    Time is a fraction in all of the toolkit: 0 is clean, 1 is the noisiest time that the reference was trained on.
    """

    def alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Signal coefficient."""

    def sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Noise coefficient."""

    def noise_rate(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        r"""$d \log(\sigma_t/\alpha_t)/dt$, positive; infinite where alpha or sigma is zero."""

    def network_time(self, t: Float[Tensor, " batch"]) -> Tensor:
        """What the network is conditioned on, `(batch,)`."""


@dataclass(frozen=True)
class VariancePreserving:
    r"""Discrete variance preserving schedule, $\alpha_t^2 + \sigma_t^2 = 1$.

    A time $t \in [0, 1]$ is rounded to the grid of training times $0 \ldots N-1$, so that $\alpha_t$, $\sigma_t$ and
    the network's timestep always belong together.

    Attributes:
        alphas_cumprod: $\alpha^2$ on the grid, `(N,)`, decreasing, in (0, 1).
    """

    alphas_cumprod: Float[Tensor, " times"]
    _copies: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def from_scheduler_config(cls, config: Mapping[str, Any]) -> VariancePreserving:
        """Read the schedule of any diffusers scheduler with a `beta_schedule`.

        diffusers' own `DDPMScheduler` does the arithmetic, zero-terminal-SNR rescaling included.

        Raises:
            RequestError: the configuration describes no beta schedule.
        """
        return cls(_ddpm_scheduler(config).alphas_cumprod)

    def _table(self, device: torch.device) -> Float[Tensor, " times"]:
        """The grid on a device, copied there once: a step asks for it many times, and a copy waits for the device."""
        if device == self.alphas_cumprod.device:
            return self.alphas_cumprod
        if device not in self._copies:
            self._copies[device] = self.alphas_cumprod.to(device)
        return self._copies[device]

    def grid_index(self, t: Float[Tensor, " batch"]) -> Tensor:
        """Index of the training time nearest to each `t`, int64."""
        last = len(self.alphas_cumprod) - 1
        return (t * last).round().long().clamp(0, last)

    def alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return self._table(t.device)[self.grid_index(t)].sqrt().to(t.dtype)

    def sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return (1 - self._table(t.device)[self.grid_index(t)]).sqrt().to(t.dtype)

    def noise_rate(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        r"""$d \log(\sigma_t/\alpha_t)/dt$ by central differences on the grid, one-sided at its ends and beside a last
        time without signal."""
        table, index = self._table(t.device), self.grid_index(t)
        last = len(table) - 1
        left, right = (index - 1).clamp_min(0), (index + 1).clamp_max(last)
        right = torch.where(table[right] > 0, right, index)
        squared = table.to(t.dtype if t.dtype == torch.float64 else torch.float32)
        height = (torch.log1p(-squared) - squared.log()) / 2
        rate = (height[right] - height[left]) * last / (right - left)
        return torch.where(table[index] > 0, rate, torch.inf).to(t.dtype)

    def network_time(self, t: Float[Tensor, " batch"]) -> Tensor:
        return self.grid_index(t)


@dataclass(frozen=True)
class FlowMatching:
    r"""The straight line of flow matching: $\alpha_t = 1 - t$, $\sigma_t = t$, optionally with a time shift.

    With shift $s$ the time is first mapped to $\tau = s t / (1 + (s - 1) t)$, as in Stable Diffusion 3 (Esser et al.
    2024, eq. 23).

    Attributes:
        shift: the shift s, 1 for none.
        network_scale: the network's time is `network_scale * tau`.
    """

    shift: float = 1.0
    network_scale: float = 1000.0

    def tau(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Time after the shift."""
        return self.shift * t / (1 + (self.shift - 1) * t)

    def alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return 1 - self.tau(t)

    def sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return self.tau(t)

    def noise_rate(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        r"""$\frac{1}{t (1 - t)}$ whatever the shift, because $\tau/(1 - \tau) = s\, t/(1 - t)$."""
        return 1 / (t * (1 - t))

    def network_time(self, t: Float[Tensor, " batch"]) -> Tensor:
        return self.network_scale * self.tau(t)


@dataclass(frozen=True)
class TrigFlow:
    r"""The circle of TrigFlow: $\alpha_t = \cos\theta$, $\sigma_t = \sin\theta$ with the angle $\theta = \pi t / 2$,
    which is what the network is conditioned on (Lu & Song 2025, arXiv 2410.11081, section 3).

    Its samples are those of flow matching in another scale: $x_t / (\alpha_t + \sigma_t)$ lies on the straight line, at
    the time $\sigma_t / (\alpha_t + \sigma_t)$. The standard deviation $\sigma_d$ that its authors multiply data and
    noise by cancels, and is 1 here.
    """

    def network_time(self, t: Float[Tensor, " batch"]) -> Tensor:
        """The angle."""
        return math.pi / 2 * t

    def alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return self.network_time(t).cos().clamp_min(0)  # rounding leaves a little below zero at the quarter of a turn

    def sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return self.network_time(t).sin()

    def noise_rate(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        r"""$\frac{d}{dt} \log \tan\theta = \frac{\pi}{\sin 2\theta}$."""
        return math.pi / (2 * self.alpha(t) * self.sigma(t))


def dynamic_mu(config: Mapping[str, Any], latent_shape: tuple[int, ...]) -> float:
    """The shift parameter mu that flow models of Flux's kind give to a resolution: linear in the number of tokens.

    Args:
        config: the scheduler's configuration, with `base_shift`, `max_shift` and the token counts they hold at.
        latent_shape: of one latent; a token is a patch of 2 by 2.
    """
    tokens = (latent_shape[-2] // 2) * (latent_shape[-1] // 2)
    low, high = float(config.get("base_image_seq_len", 256)), float(config.get("max_image_seq_len", 4096))
    base, top = float(config.get("base_shift", 0.5)), float(config.get("max_shift", 1.15))
    return base + (tokens - low) * (top - base) / (high - low)


def schedule_from_config(config: Mapping[str, Any], latent_shape: tuple[int, ...] | None = None) -> Schedule:
    """The schedule that a diffusers scheduler configuration describes.

    Args:
        config: the configuration, as in `scheduler_config.json`.
        latent_shape: of one latent, for flow models whose shift depends on the resolution.

    Raises:
        RequestError: neither a beta schedule nor a flow matching scheduler, or one that cannot be read; see
            `scheduler_classes`.
    """
    config = class_config(config)
    check_schedule_readable(config)
    name = str(config.get("_class_name", ""))
    if name in TRIGFLOW:
        return TrigFlow()
    if "FlowMatch" in name or config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        scale = float(config.get("num_train_timesteps", 1000))
        if config.get("use_dynamic_shifting") and latent_shape is not None:
            mu = dynamic_mu(config, latent_shape)
            linear = config.get("time_shift_type", "exponential") == "linear"
            return FlowMatching(shift=mu if linear else math.exp(mu), network_scale=scale)
        return FlowMatching(shift=float(config.get("shift", config.get("flow_shift", 1.0))), network_scale=scale)
    return VariancePreserving.from_scheduler_config(config)


def betas_from_config(config: Mapping[str, Any]) -> Float[Tensor, " times"]:
    r"""The betas of a variance preserving configuration, float32, whose running product of $1 - \beta$ is $\alpha^2$.

    Raises:
        RequestError: the configuration describes no beta schedule.
    """
    betas: Tensor = _ddpm_scheduler(config).betas
    return betas


def _ddpm_scheduler(config: Mapping[str, Any]) -> Any:
    from diffusers import DDPMScheduler

    if "beta_schedule" not in config and config.get("trained_betas") is None:
        raise RequestError(
            "The scheduler's configuration has no beta_schedule, so it is not a variance preserving schedule."
        )
    names = (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
    )
    return DDPMScheduler(**{name: config[name] for name in names if name in config})


def expand_like(values: Float[Tensor, " batch"], x: Tensor) -> Tensor:
    """Shape `(B,)` values as `(B, 1, ...)` so that they multiply `x`."""
    return values.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def add_noise(schedule: Schedule, x0: Tensor, noise: Tensor, t: Float[Tensor, " batch"]) -> Tensor:
    r"""$x_t = \alpha_t x_0 + \sigma_t \epsilon$."""
    return expand_like(schedule.alpha(t), x0) * x0 + expand_like(schedule.sigma(t), x0) * noise


def discrete_times(schedule: Schedule, count: int = 1000) -> Float[Tensor, " times"]:
    """An even grid of times from 0 to 1, as many as the schedule has (or `count`)."""
    if isinstance(schedule, VariancePreserving):
        count = len(schedule.alphas_cumprod)
    return torch.linspace(0, 1, count)


def usable_times(schedule: Schedule) -> tuple[float, float]:
    r"""The first and the last of a schedule's times at which both $\alpha_t$ and $\sigma_t$ are at least `LEAST`.

    A score needs both: $\hat x_0$ of a prediction of noise divides by alpha, the score by $\sigma^2$. At a schedule's
    very ends one of them may be zero, and what is learnt or compared there infinite or none at all.
    """
    try:
        return _remembered_usable_times(cast(Hashable, schedule))
    except TypeError:  # a user's own schedule without a hash
        return _find_usable_times(schedule)


def _find_usable_times(schedule: Schedule) -> tuple[float, float]:
    times = discrete_times(schedule).double()
    usable = times[(schedule.alpha(times) >= LEAST) & (schedule.sigma(times) >= LEAST)]
    return (usable[0].item(), usable[-1].item()) if len(usable) else (0.0, 1.0)


_remembered_usable_times = lru_cache(maxsize=64)(_find_usable_times)


def at_usable_times(schedule: Schedule, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Times, those beyond the schedule's usable ones moved to the nearest of them."""
    return t.clamp(*usable_times(schedule))
