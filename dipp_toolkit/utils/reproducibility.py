"""The same bits from the same seed: random states, and generators seeded by an image's noise.

A user's reward or a plugin may draw from Python's, numpy's or torch's global random state, so a run keeps and
restores all three.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..distributed.shared_draws import digest_seed


def seed_everything(seed: int) -> None:
    """Start Python's, numpy's and torch's random numbers from a seed, on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def random_states_kept(device: torch.device) -> Iterator[None]:
    """Python's, numpy's and torch's random states are the same after this context as before it."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def random_states(device: torch.device) -> dict[str, Any]:
    """Python's, numpy's and torch's states, the device's included, as a checkpoint can hold them."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "place": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Take over what `random_states` gave."""
    torch.set_rng_state(states["torch"])
    python, numpy = states["python"], states["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["name"], keys, numpy["place"], numpy["has_gauss"], numpy["cached"]))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def own_generators(noise: Float[Tensor, "batch ..."]) -> list[torch.Generator]:
    """A random generator for each image, a function of the image's own initial noise alone.

    Its seed is the digest of the noise's bytes as float32. It is a generator of the CPU, so that the numbers do not
    depend on the device; stock pipelines take such a list as `generator`.

    Args:
        noise: pure noises z, one an image.
    """
    rows = noise.detach().to("cpu", torch.float32).contiguous()
    return [torch.Generator().manual_seed(digest_seed(row.numpy().tobytes())) for row in rows]
