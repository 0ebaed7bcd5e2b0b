r"""Several rewards through one backward pass of the decoder.

With the factors $f_i$ of the rewards $r_i$, the images $x = C(p)$ of the pixels $p = D(z)$, and the clamp's rule $C_i$
of what passes for reward i,

$$\sum_i f_i \nabla_z r_i = \left(\frac{\partial D}{\partial z}\right)^T \sum_i f_i\, C_i(\nabla_x r_i),$$

because the decoder's way back is linear. The clamp's is not: each reward passes it by itself, before the sum. One
reward's graph is alive at a time, and the decoder's once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...rewards.groups import samples_per_prompt
from ...utils.step_parts import REWARD, step_part
from ..base import Sample, Term
from .reward import RewardTerm
from .shared_decode import Decoded


def joinable(terms: Mapping[str, Term], sample: Sample) -> dict[str, RewardTerm]:
    """The rewards among these terms that can share a backward pass of the decoder; none where fewer than two can.

    Args:
        terms: by name.
        sample: of a pass, on which it is settled which rewards have a gradient.

    Raises:
        RunError: a reward failed.
    """
    rewards = {name: term for name, term in terms.items() if isinstance(term, RewardTerm)}
    for term in rewards.values():
        if term.black_box is None:
            term.find_out(sample.x0, sample.condition)
    differentiated = {name: term for name, term in rewards.items() if not term.black_box}
    # One that is sometimes learned on latents decides by itself whether it decodes.
    if len(differentiated) < 2 or any(term.latent is not None for term in differentiated.values()):
        return {}
    first = next(iter(differentiated.values()))
    alike = all(term.shared is first.shared and term.batch == first.batch for term in differentiated.values())
    return differentiated if alike and first.shared.ends_with_clamp(sample.x0) else {}


def differentiate_together(
    terms: Mapping[str, RewardTerm], factors: Mapping[str, Tensor | float], sample: Sample
) -> tuple[dict[str, Tensor], Tensor]:
    """Each reward's scores by name, and the gradient of minus their sum with these factors, like the samples.

    Args:
        terms: rewards of one decoder.
        factors: what their gradients are multiplied by.
        sample: of a pass.

    Raises:
        RunError: a reward failed, or has no gradient.
    """
    first = next(iter(terms.values()))
    prompts = sample.condition.prompts
    grouped = next((term for term in terms.values() if samples_per_prompt(term.reward) > 1), first)
    scores: dict[str, list[Tensor]] = {name: [] for name in terms}
    gradients = []
    for part in grouped.parts(prompts):
        decoded = first.shared.decoded_alone(sample.x0[part])
        summed = torch.zeros((), device=sample.x0.device)
        for name, term in terms.items():
            own, pixels = _at_the_clamp(term, decoded, prompts[part])
            scores[name].append(own)
            summed = summed + torch.as_tensor(term.rising * factors[name]).to(pixels.dtype) * pixels
        gradients.append(decoded.pull_back_pixels(summed))
    return {name: torch.cat(parts) for name, parts in scores.items()}, -torch.cat(gradients)


@step_part(lambda term, decoded, prompts: f"{REWARD} {term.name}")
def _at_the_clamp(term: RewardTerm, decoded: Decoded, prompts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    scores, gradient = term.differentiate_images(decoded.images, prompts)
    return scores, decoded.before_clamp(gradient)
