"""Stage `preference`: a Bradley-Terry reward from pairs whose order is known, the reward `emoji-preference`."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from dipp_toolkit.utils.precision import native_autocast

from ..captions import pairs
from ..degrade import DEGRADATIONS
from ..rewards import PreferenceConfig, PreferenceModel
from ..text import CaptionTokenizer
from .clip import CaptionIds
from .fitting import Optimizer, group_loss, measure_order
from .ordered import NOISE_FLOOR, Groups, ModelSamples, load_vae, wrong_pairs
from .pixart import build_tokenizer

INPUT_NOISE = 0.04
"""Largest deviation of more noise, one level for a whole group, so that the gradient hangs on no fine pattern."""


def train_preference(
    target: Path, *, vae: Path, samples: Path | None = None, steps: int = 750, batch: int = 32, seed: int = 1
) -> dict[str, float]:
    """Train and save `target`.

    Args:
        target: the model's folder.
        vae: the world's autoencoder.
        samples: models' samples (see `ModelSamples`); the even half is used. Without them the reward knows
        degradations alone.
        steps: updates, of `batch` groups of three images.

    Returns:
        Seconds taken and, on fresh compositions of held-out pairs, the share of pairs in the right order, a kind at a
        time.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    tokenizer = build_tokenizer()
    captions = CaptionIds(CaptionTokenizer(tokenizer))
    config = PreferenceConfig()
    config.text["vocab_size"] = len(tokenizer)
    model = PreferenceModel(config).to(memory_format=torch.channels_last).train()
    optimizer = Optimizer(model, steps, matrix_rate=2e-3, rate=2e-3)
    started = time.perf_counter()
    drawn = ModelSamples(samples, half=0) if samples is not None else None
    table = torch.tensor(pairs(held_out=False))
    groups = Groups(table, DEGRADATIONS, load_vae(vae), drawn, generator, latent_share=0.08)
    for step in range(steps):
        images, shown, trusted = groups.draw(batch)
        level = NOISE_FLOOR + INPUT_NOISE * torch.rand(1, batch, 1, 1, 1, generator=generator)
        images = images + level * torch.randn(images.shape, generator=generator)
        named = torch.cat([shown[None], wrong_pairs(shown, generator)])
        texts = captions.draw(named, generator)
        with native_autocast():
            seen = model.image_features(images.flatten(0, 1) * 2 - 1).unflatten(0, images.shape[:2])
            read = model.text_features(texts.flatten(0, 1)).unflatten(0, texts.shape[:2])
            loss = group_loss(seen, read, model.parts, named, trusted)
        optimizer.step(loss)
        if step % 25 == 0:
            print(f"preference {step:5d} loss {loss.item():.3f} {time.perf_counter() - started:.0f}s", flush=True)
    seconds = time.perf_counter() - started
    held = torch.tensor(pairs(held_out=True))
    measured = measure_order(
        model.to(memory_format=torch.contiguous_format).eval(), held, captions.canonical, groups, DEGRADATIONS
    )
    model.half().save_pretrained(target)
    tokenizer.save_pretrained(target)
    return {"seconds": seconds, **measured}
