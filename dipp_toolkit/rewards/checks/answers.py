"""Whether a reward answers at all: batches, sizes, unusual pictures."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import RunError
from .probe import BATCH, Probe
from .verdicts import Verdict, failed, ok, warning

BATCHES = (1, 2, 5)
SMALL = 8


def check_scores(probe: Probe) -> Verdict:
    """One finite score for each of an ordinary batch's pictures."""
    probe.move(probe.device)
    scores = probe.score(probe.pictures(), probe.prompts())
    low, high = scores.min().item(), scores.max().item()
    if low == high:
        return warning(
            f"{BATCH} different pictures all score {low:.4g}.", "A reward that is constant has nothing to teach."
        )
    return ok(f"{BATCH} pictures score from {low:.4g} to {high:.4g}.")


def check_batches(probe: Probe) -> Verdict:
    """Batches of one, of two, and of a number that no kernel likes."""
    for count in BATCHES:
        try:
            probe.score(probe.pictures(count, key=count), probe.prompts(count))
        except RunError as error:
            return failed(
                f"With a batch of {count}: {error}", "Return one score for each image, also where there is only one."
            )
    return ok(f"Batches of {', '.join(map(str, BATCHES))} are scored.")


def check_sizes(probe: Probe) -> Verdict:
    """Wide pictures, odd sizes, and very small ones, the last a matter for a warning."""
    side = probe.size
    for height, width in ((side, side), (side * 3 // 2, side), (side + 1, side * 3 // 2 + 1)):
        try:
            probe.score(probe.pictures(height=height, width=width), probe.prompts())
        except RunError as error:
            return failed(
                f"With pictures of {height}x{width}: {error}", "Resize inside the reward to the size that it needs."
            )
    try:
        probe.score(probe.pictures(height=SMALL, width=SMALL), probe.prompts())
    except RunError as error:
        return warning(f"With pictures of {SMALL}x{SMALL}: {error}", "Mind this if you ever score thumbnails.")
    return ok(f"Pictures of {side}x{side}, other shapes, odd sizes and {SMALL}x{SMALL} are scored.")


def unusual(probe: Probe) -> dict[str, Float[Tensor, "batch 3 height width"]]:
    """Batches of pictures that models are not trained on, by name."""
    plain = torch.ones(BATCH, 3, probe.size, probe.size, device=probe.device)
    noise = torch.rand(plain.shape, generator=probe.random(7)).to(probe.device)
    grey = probe.pictures(key=8).mean(1, keepdim=True).expand_as(plain).contiguous()
    return {"black": 0 * plain, "white": plain, "plain grey": plain / 2, "grey-scale": grey, "noisy": noise}


def check_contents(probe: Probe) -> Verdict:
    """Plain, colourless and noisy pictures."""
    seen = []
    for name, images in unusual(probe).items():
        try:
            seen.append(f"{name} {probe.score(images, probe.prompts()).mean().item():.4g}")
        except RunError as error:
            return failed(f"With {name} pictures: {error}", "Put a small constant under roots, logarithms, divisors.")
    return ok(f"All are scored: {', '.join(seen)}.")
