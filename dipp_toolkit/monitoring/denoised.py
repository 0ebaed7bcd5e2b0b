"""How the assistant and the reference see the probe's noised samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.schedules import add_noise
from ..diffusion.times import clamped_snr
from ..objective.terms.divergence import guided_x0
from ..protocols import Reference, ScoreModel
from .kl_by_time import kl_by_time
from .lag import lag
from .probe import Probe


@dataclass(frozen=True)
class Denoised:
    """Numbers of the samples, one a row.

    Attributes:
        gap: squared distance between the assistant's and the reference's denoised sample, summed over dimensions.
        loss: the assistant's loss.
        earlier_loss: its loss on the samples one update older, with the same noise; None where there are none.
    """

    gap: Float[Tensor, " rows"]
    loss: Float[Tensor, " rows"]
    earlier_loss: Float[Tensor, " rows"] | None


@torch.no_grad()
def look_at(
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


def numbers_of(probe: Probe, reference: Reference, seen: Denoised) -> Mapping[str, Any]:
    """What a line of `diagnostics.jsonl` holds of it: `divergence`, and `lag` where older samples were seen."""
    by_time = kl_by_time(probe.by_bin(seen.gap), reference.denoiser.schedule, probe.times)
    nats = by_time.mean().item()
    divergence = {
        "nats": nats,
        "per_dimension": nats / probe.z[0].numel(),
        "times": probe.times.tolist(),
        "by_time": by_time.tolist(),
    }
    if seen.earlier_loss is None:
        return {"divergence": divergence}
    return {"divergence": divergence, "lag": lag(seen.loss, seen.earlier_loss)}
