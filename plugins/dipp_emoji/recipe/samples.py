"""Stage `samples`: images of the reference and of the distilled generator, negatives for preference and judge."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from dipp_toolkit.models.loading import load_generator, load_reference
from dipp_toolkit.models.sampling import generate_images, sample_reference

from ..captions import caption, pairs


def make_samples(
    target: Path, reference: Path, generator: Path, rounds: int = 4, steps: int = 12, guidance: float = 2.0
) -> dict[str, float]:
    """Write `reference.safetensors` (one image a training pair) and `onestep.safetensors` (`rounds` images a pair).

    Each holds `images` (uint8, `(N, 3, 64, 64)`), `emoji` and `background` (int64, `(N,)`). Rows are in random order,
    so that any split of them is a split by chance.

    Returns:
        Seconds taken and the number of images of each.
    """
    started = time.perf_counter()
    target.mkdir(parents=True, exist_ok=True)
    world, onestep = load_reference(str(reference)), load_generator(str(generator))
    table = torch.tensor(pairs(held_out=False))
    condition = world.encode([caption(i, j) for i, j in table.tolist()])
    sets = {
        "reference": [sample_reference(world, condition, 10_000, steps, guidance)],
        "onestep": [generate_images(onestep, world, condition, 20_000 + k) for k in range(rounds)],
    }
    counts = {}
    for name, parts in sets.items():
        images = torch.cat(parts).mul(255).round().byte()
        rows = table.repeat(len(parts), 1)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        save_file(
            {
                "images": images[order].contiguous(),
                "emoji": rows[order, 0].contiguous(),
                "background": rows[order, 1].contiguous(),
            },
            target / f"{name}.safetensors",
        )
        counts[f"{name}_images"] = float(len(images))
    return {"seconds": time.perf_counter() - started} | counts
