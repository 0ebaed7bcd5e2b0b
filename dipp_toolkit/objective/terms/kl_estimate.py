r"""The integral KL in nats, from the two predictions that every divergence makes anyway.

With $\rho_t = \alpha_t^2/\sigma_t^2$ the laws of noised samples come closer as noise is added, at the rate

$$-\frac{d}{dt} KL(p_t \| q_t) = r(t) = \frac{d \log(\sigma_t/\alpha_t)}{dt}\, \rho_t\, E_{p_t}
  \left|\hat x_0^\psi - \hat x_0^{ref}\right|^2$$

(de Bruijn's identity for two laws, as I-MMSE: Verdu 2010, "Mismatched estimation and relative entropy", theorem 1; with
$y = x_t/\alpha_t = x_0 + \sqrt{v}\, \epsilon$ it is $dKL/dv = -\frac12 E|s_p - s_q|^2$). Integrated by parts over the
times $[l, h]$ that are looked at,

$$\frac{1}{h - l} \int_l^h KL(p_t \| q_t)\, dt = KL(p_h \| q_h) + E_{t \sim U[l, h]}\big[(t - l)\, r(t)\big] .$$

Of the first summand, $\frac12 \int_0^{\rho_h} E|\hat x_0^\psi - \hat x_0^{ref}|^2 d\rho$, there are no samples. It is
taken to be what the same gap makes between $\rho_h$ and $2 \rho_h$, as the gap is constant in the limit of pure noise:
samples there count $h - l$ more. At the usual end $h = 0.98$ it is next to nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...diffusion.schedules import Schedule
from ...diffusion.times import TimeLaw


def kl_weight(schedule: Schedule, times: TimeLaw, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    r"""What a squared gap $|\hat x_0^\psi - \hat x_0^{ref}|^2$ at time t adds to the integral KL.

    Where alpha or sigma is zero it is zero: there the gap vanishes faster than this grows, at a time without noise as
    at one without signal.

    Args:
        schedule: the forward process.
        times: the law that t was drawn from.
        t: in [0, 1].
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    end = t.new_full((1,), times.high)
    ratio, last = (alpha / sigma).square(), (schedule.alpha(end) / schedule.sigma(end)).square()
    reach = t - times.low + (times.high - times.low) * (ratio <= 2 * last)
    weight = reach * ratio * schedule.noise_rate(t) * times.importance(t)
    return torch.where((alpha > 0) & (sigma > 0), weight, 0.0)


def kl_estimate(
    schedule: Schedule,
    times: TimeLaw,
    t: Float[Tensor, " batch"],
    x0_assistant: Float[Tensor, "batch ..."],
    x0_reference: Float[Tensor, "batch ..."],
) -> Float[Tensor, " batch"]:
    r"""Each sample's share of $D_{IKL} = \frac{1}{h - l} \int_l^h KL(p_t \| q_t)\, dt$ in nats for each dimension of a
    sample; the mean over samples estimates it, whatever weighting the gradient has. None is negative.

    It is the distance between the laws as both networks see them: what the assistant does not know yet of the generator
    is missing. Towards a guided reference it is what its gradient field would make of the KL, which is that of two laws
    only where the field is some law's.

    Args:
        schedule: the forward process.
        times: the law that t was drawn from.
        t: times of samples that were drawn from the generator and noised.
        x0_assistant: what the assistant predicts of them.
        x0_reference: what the reference does.
    """
    gap = (x0_assistant - x0_reference).float() if x0_assistant.dtype != torch.float64 else x0_assistant - x0_reference
    return kl_weight(schedule, times, t) * gap.square().flatten(1).mean(1)
