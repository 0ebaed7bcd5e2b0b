r"""How the assistant and the reference see the probe's noised samples, and the KL divergence that this makes.

With $\rho(t) = \alpha_t^2/\sigma_t^2$ the signal-to-noise ratio and $\hat x_0^p$, $\hat x_0^q$ the denoised samples of
two laws p and q, their noised versions are apart by

$$KL(p_t \| q_t) = \frac12 \int_0^{\rho(t)} E_{p} \left|\hat x_0^p - \hat x_0^q\right|^2 d\rho$$

in nats (Guo, Shamai and Verdu 2005, the I-MMSE identity; Verdu 2010, theorem 1, for two laws). No density is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.schedules import Schedule, add_noise
from ..diffusion.times import clamped_snr
from ..objective.terms.divergence import guided_x0
from ..protocols import Reference, ScoreModel
from .probe import Probe


@dataclass(frozen=True)
class Denoised:
    """Numbers of the samples, one a row.

    Attributes:
        gap: squared distance between the assistant's and the reference's denoised sample, summed over dimensions.
        loss: the assistant's loss.
        earlier_loss: its loss on the samples one update older, with the same noise; None without such samples.
    """

    gap: Float[Tensor, " rows"]
    loss: Float[Tensor, " rows"]
    earlier_loss: Float[Tensor, " rows"] | None


@torch.no_grad()
def denoise_samples(
    probe: Probe,
    reference: Reference,
    assistant: ScoreModel,
    guidance: float,
    x0: Float[Tensor, "rows ..."],
    earlier: Float[Tensor, "rows ..."] | None,
    noise: Float[Tensor, "rows ..."],
) -> Denoised:
    """Noise the probe's samples and denoise them again.

    Args:
        probe: says which prompt and time belong to each sample.
        reference: with `guidance`.
        assistant: held fixed.
        guidance: the run's, 1 for none.
        x0: the samples.
        earlier: the generator's samples of the same noises one update ago.
        noise: the noise of the forward process.
    """
    schedule, t = reference.denoiser.schedule, probe.t
    weight = clamped_snr(schedule, t)
    gaps, losses, earlier_losses = [], [], []

    def loss(clean: Tensor, denoised: Tensor, rows: slice) -> Tensor:
        return weight[rows] * (denoised - clean).square().flatten(1).mean(1)

    for rows in probe.parts():
        condition = probe.chosen[rows]
        x_t = add_noise(schedule, x0[rows], noise[rows], t[rows])
        own = assistant.predict_x0(x_t, t[rows], condition)
        theirs = guided_x0(reference, x_t, t[rows], condition, guidance)
        gaps.append((own - theirs).double().square().flatten(1).sum(1))
        losses.append(loss(x0[rows], own, rows))
        if earlier is not None:
            x_t = add_noise(schedule, earlier[rows], noise[rows], t[rows])
            earlier_losses.append(loss(earlier[rows], assistant.predict_x0(x_t, t[rows], condition), rows))
    return Denoised(torch.cat(gaps), torch.cat(losses), torch.cat(earlier_losses) if earlier_losses else None)


def bin_middles(low: float, high: float, bins: int) -> Float[Tensor, " bins"]:
    """Middles of equal bins of the times `[low, high]`, rising, float64."""
    return low + (high - low) * (torch.arange(bins, dtype=torch.float64) + 0.5) / bins


def kl_by_time(
    gap: Float[Tensor, " bins"], schedule: Schedule, times: Float[Tensor, " bins"]
) -> Float[Tensor, " bins"]:
    r"""$KL(p_t \| q_t)$ in nats at rising times.

    The integral over $\rho$ is one over $\log \rho$, in which $\rho\, E|\hat x_0^p - \hat x_0^q|^2$ is smooth, by the
    trapezoid rule. Below the signal-to-noise ratio of the last time the gap is taken as constant, which it is in the
    limit of pure noise.

    Args:
        gap: $E_p |\hat x_0^p - \hat x_0^q|^2$, summed over a sample's dimensions.
        schedule: the forward process.
        times: rising; alpha and sigma are zero at none of them.
    """
    ratio = (schedule.alpha(times) / schedule.sigma(times)).square().to(gap)
    height, place = ratio * gap, ratio.log()
    pieces = (height[:-1] + height[1:]) / 2 * (place[:-1] - place[1:])
    from_noise = torch.cat([height[-1:], pieces.flip(0)]).cumsum(0)
    return from_noise.flip(0) / 2
