"""How reward and judge are fitted and measured: losses, optimiser, order on held-out pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .muon import Muon
from .ordered import Degradations, Groups, compose_bank, distinct_rows, round_trip, wrong_pairs

MAGNITUDE = 0.005
"""Weight of the squared score in the loss: keeps scores within a few units, so that a reward never saturates."""
CAPTION_SCALE = 5.0
"""Scale of the match where captions compete: with a match within 3, an inverse temperature of 15 on its cosine."""


def preference_loss(better: Tensor, worse: Tensor) -> Tensor:
    """Bradley-Terry: $-\\log \\sigma(r_{better} - r_{worse})$, mean."""
    return F.softplus(worse - better).mean()


def group_loss(
    seen: Tensor, read: Tensor, parts: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], shown: Tensor, trusted: int
) -> Tensor:
    """The loss of a batch of groups: images in order, and the right caption above every wrong one.

    Images are ordered within their group; the best must also beat the worst of every other group, so that scores of
    different captions share a zero.

    Args:
        seen: features of the images, `(3, B, D)`, best first.
        read: features of three captions a group, `(3, B, E)`, the right one first.
        parts: the score's summands from features: quality and match.
        shown: the pairs that the captions name, `(3, B, 2)`.
        trusted: how many leading groups hold no model's sample, which may show something else than its caption says.
    """
    quality, matched = parts(seen, read[:1])
    best, middle, worst = quality + matched
    order = preference_loss(best, middle) + preference_loss(middle, worst) + preference_loss(best[:, None], worst)
    match = caption_loss(seen[0], read, parts, shown) + caption_loss(seen[1, :trusted], read, parts, shown)
    return 2 * order / 3 + match / 4 + MAGNITUDE * (quality + matched).square().mean()


def caption_loss(
    seen: Tensor, read: Tensor, parts: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], shown: Tensor
) -> Tensor:
    """Plackett-Luce's first choice: each image's own caption above all others of the batch, `(3, B)` of them."""
    count = len(seen)
    matched = CAPTION_SCALE * parts(seen[:, None], read.flatten(0, 1))[1]
    names = shown.flatten(0, 1)
    same = (names[:count, None] == names).all(-1)
    same[torch.arange(count), torch.arange(count)] = False
    return F.cross_entropy(matched.masked_fill(same, -torch.inf), torch.arange(count))


def one_cycle(step: int, steps: int, warmup: float = 0.08) -> float:
    """Share of the full learning rate: linear warm-up, then cosine to 1 %."""
    progress = step / steps
    if progress < warmup:
        return (step + 1) / (warmup * steps + 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


class Optimizer:
    """Muon for matrices, AdamW for the rest, both under `one_cycle`, with clipped gradients."""

    def __init__(self, model: nn.Module, steps: int, matrix_rate: float, rate: float):
        tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in tables]
        others = [p for p in model.parameters() if p.ndim != 2 or id(p) in tables]
        self.model = model
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=matrix_rate, weight_decay=0.01),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=0.01),
        ]
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, steps))
            for optimizer in self.optimizers
        ]

    def step(self, loss: Tensor) -> None:
        """One update along the gradient of `loss`."""
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def measure_order(
    model: Any,
    pairs: Tensor,
    captions: Callable[[Tensor], Tensor],
    groups: Groups,
    degradations: Degradations,
) -> dict[str, float]:
    """How often `model` puts pairs into their right order, on decoded fresh compositions.

    Args:
        model: has `image_features`, `text_features` and `parts`.
        pairs: pairs to compose, `(P, 2)`.
        captions: token ids of pairs.
        groups: where the model's training images came from: its autoencoder, held samples and random source are used.
        degradations: kinds to measure, each at severities between 0.2 and 1.

    Returns:
        `order/<kind>`, `order/sample/<model>`, `order/wrong_emoji` and `order/wrong_background`: shares in [0, 1];
        `score/real`, `score/sample/<model>`: mean scores.
    """

    vae, samples, generator = groups.vae, groups.samples, groups.generator

    def scores(images: Tensor, ids: Tensor) -> Tensor:
        quality, matched = model.parts(model.image_features(images * 2 - 1), model.text_features(ids))
        return quality + matched

    real = round_trip(vae, compose_bank(pairs, 1, generator)[:, 0].float() / 255, exact=True)
    right = scores(real, captions(pairs))
    measured = {"score/real": right.mean().item()}
    for name, wrong in zip(("wrong_emoji", "wrong_background"), wrong_pairs(pairs, generator), strict=True):
        measured[f"order/{name}"] = (right > scores(real, captions(wrong))).float().mean().item()
    few = distinct_rows(len(pairs), 128, generator)
    for name, degrade in degradations.items():
        severity = 0.2 + 0.8 * torch.rand(len(few), generator=generator)
        spoilt = scores(degrade(real[few], severity, generator).clamp(0, 1), captions(pairs[few]))
        measured[f"order/{name}"] = (right[few] > spoilt).float().mean().item()
    for name, held in samples.held.items() if samples is not None else ():
        shown = torch.stack([held["emoji"], held["background"]], 1).long()
        sampled = scores(held["images"].float() / 255, captions(shown))
        composed = round_trip(vae, compose_bank(shown, 1, generator)[:, 0].float() / 255, exact=True)
        measured[f"score/sample/{name}"] = sampled.mean().item()
        measured[f"order/sample/{name}"] = (scores(composed, captions(shown)) > sampled).float().mean().item()
    return measured
