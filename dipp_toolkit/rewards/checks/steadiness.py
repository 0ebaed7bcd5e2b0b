"""Whether a score depends on its own image and prompt alone: not on chance, on earlier calls, or on its neighbours."""

from __future__ import annotations

from contextlib import suppress

import torch

from ...errors import RunError
from .modules import modules_of
from .probe import Probe
from .verdicts import Closeness, Verdict, compare, failed, gap, ok, spread_of, warning

HALF_PRECISION = "Half precision does that; compute the last layers in float32 if it matters."


def check_repeats(probe: Probe) -> Verdict:
    """The same call gives the same scores: again, after other calls, and where gradients are on."""
    images, prompts = probe.pictures(), probe.prompts()
    first = probe.score(images, prompts)
    again = {"The same call twice": probe.score(images, prompts)}
    for key in (11, 12):
        probe.score(probe.pictures(key=key), probe.prompts()[::-1])
    again["The same call before and after others"] = probe.score(images, prompts)
    with suppress(RunError):  # a black box may refuse images with a graph, which another check says
        again["The same call without and with gradients"] = probe.gradient(images, prompts)[0].cpu().double()
    worst: dict[Closeness, str] = {}
    for what, scores in again.items():
        worst.setdefault(compare(first, scores), f"{what} gives scores that differ by {gap(first, scores):.3g}.")
    if "different" in worst:
        training = any(part.training for module in modules_of(probe.reward) for part in module.modules())
        advice = "Call .eval() on its networks." if training else "Draw nothing at random, and keep no running state."
        return failed(worst["different"], advice)
    if "near" in worst:
        return warning(worst["near"], HALF_PRECISION)
    exact = all(torch.equal(first, scores) for scores in again.values())
    return ok(f"The same call gives the same scores{' to the bit' if exact else ', but for rounding'}.")


def check_neighbours(probe: Probe) -> Verdict:
    """An image scores the same alone as among others, and a batch in another order scores in that order."""
    images, prompts = probe.pictures(), probe.prompts()
    together = probe.score(images, prompts)
    alone = torch.cat([probe.score(image[None], [prompt]) for image, prompt in zip(images, prompts, strict=True)])
    order = [2, 0, 3, 1]
    moved = probe.score(images[order], [prompts[index] for index in order])
    spread = spread_of(together)
    cases = {
        "An image alone and in a batch": (alone, together),
        "A batch in another order": (moved, together[order]),
    }
    for what, (scores, expected) in cases.items():
        if compare(scores, expected, spread) == "different":
            return failed(
                f"{what} has scores that differ by {gap(scores, expected):.3g}.",
                "Let a score depend on its own image and prompt alone: no statistics over the batch, no batch-norm in "
                "training mode, no sum or mean over dimension 0.",
            )
    for what, (scores, expected) in cases.items():
        if compare(scores, expected, spread) == "near":
            return warning(f"{what} has scores that differ by {gap(scores, expected):.3g}.", HALF_PRECISION)
    return ok("A score does not depend on the other images of its batch, nor on their order.")
