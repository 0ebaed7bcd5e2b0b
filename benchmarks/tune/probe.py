"""The probe: a small classifier of plain compositions and stickers, trained here, that says which an image is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dipp_emoji.captions import pairs
from dipp_toolkit.utils.images import Images

from .style import draw

STEPS, BATCH, RATE = 300, 32, 3e-3
POOL = 400
"""Compositions of each kind that it is trained on, encoded and decoded once."""


def network() -> nn.Sequential:
    """Four convolutions, 24 thousand weights."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 24), (24, 32), (32, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 1))


@dataclass
class Probe:
    """A trained probe.

    Attributes:
        model: gives a logit for each image, positive for a sticker.
        accuracy: on compositions of held-out pairs, of both kinds, seen through the autoencoder.
    """

    model: nn.Module
    accuracy: float

    @torch.no_grad()
    def styled(self, images: Images) -> Float[Tensor, " batch"]:
        """1 for each image that is taken for a sticker, else 0."""
        return (self.model(2 * images - 1)[:, 0] > 0).double()


def train_probe(seen: Callable[[Images], Images], seed: int = 0) -> Probe:
    """Train on pictures of training pairs and measure on those of held-out ones.

    Args:
        seen: what the reference's autoencoder makes of pictures: all images that are judged come out of it. A random
            share of the pictures is also blurred slightly, so that sharpness does not decide.
        seed: of weights and draws.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network()
    random = torch.Generator().manual_seed(seed)
    table = torch.tensor(pairs(held_out=False))
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    chosen = table[torch.randperm(len(table), generator=random)[:POOL]]
    pool = seen(torch.cat(draw(chosen[:, 0], chosen[:, 1], random)))
    kinds = torch.tensor([0.0, 1.0]).repeat_interleave(POOL)
    for _ in range(STEPS):
        rows = torch.randint(len(pool), (BATCH,), generator=random)
        images, truth = pool[rows], kinds[rows]
        blurred = F.avg_pool2d(F.pad(images, [1] * 4, mode="replicate"), 3, 1)
        images = torch.lerp(images, blurred, torch.rand(len(images), 1, 1, 1, generator=random))
        loss = F.binary_cross_entropy_with_logits(model(2 * images - 1)[:, 0], truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    probe = Probe(model.eval(), 0.0)
    held = torch.tensor(pairs(held_out=True))
    plain, stickers = (seen(images) for images in draw(held[:, 0], held[:, 1], random))
    probe.accuracy = float(torch.cat([1 - probe.styled(plain), probe.styled(stickers)]).mean())
    return probe
