"""Stage `judge`: the independent `emoji-judge`, from its own pairs, degradations and samples."""

from __future__ import annotations

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dipp_toolkit.utils.precision import native_autocast

from ..captions import BACKGROUNDS, emoji
from ..degrade_judge import DEGRADATIONS
from ..judge import JudgeConfig, JudgeModel
from ..text import CaptionTokenizer
from .clip import CaptionIds
from .fitting import Optimizer, group_loss, measure_order
from .ordered import NOISE_FLOOR, Groups, ModelSamples, compose_bank, load_vae, round_trip, wrong_pairs
from .pixart import build_tokenizer

SEEN_BACKGROUNDS = 6


def judge_pairs(seen: bool) -> Tensor:
    """The judge's own split: of each emoji, six random backgrounds are seen (792 pairs) and two are not (264 pairs).

    It crosses the split into training and held-out pairs. It is drawn at random because in a regular one, the
    background would tell which emoji are possible.
    """
    generator = torch.Generator().manual_seed(2024)
    order = torch.rand(len(emoji()), len(BACKGROUNDS), generator=generator).argsort(1)
    chosen = (order[:, :SEEN_BACKGROUNDS] if seen else order[:, SEEN_BACKGROUNDS:]).sort(1).values
    return torch.stack([torch.arange(len(emoji()))[:, None].expand_as(chosen), chosen], -1).flatten(0, 1)


def naming_loss(model: JudgeModel, features: Tensor, pairs: Tensor) -> Tensor:
    """Cross-entropy of both naming heads."""
    named = F.cross_entropy(model.emoji(features).float(), pairs[:, 0], label_smoothing=0.05)
    return named + 0.3 * F.cross_entropy(model.background(features).float(), pairs[:, 1], label_smoothing=0.05)


@torch.no_grad()
def measure_naming(model: JudgeModel, groups: Groups) -> dict[str, float]:
    """Naming on decoded fresh compositions of the pairs that the judge has not seen, and on held-out samples."""
    unseen = judge_pairs(seen=False)
    real = compose_bank(unseen, 1, groups.generator)[:, 0].float() / 255
    shown = {"real": (round_trip(groups.vae, real, exact=True), unseen)}
    for name, held in groups.samples.held.items() if groups.samples is not None else ():
        shown[name] = (held["images"].float() / 255, torch.stack([held["emoji"], held["background"]], 1).long())
    measured = {}
    for name, (images, pairs) in shown.items():
        features = model.image_features(images * 2 - 1)
        found = torch.stack([model.emoji(features).argmax(1), model.background(features).argmax(1)], 1)
        measured[f"naming/{name}"] = (found == pairs).all(1).float().mean().item()
    return measured


def train_judge(
    target: Path, *, vae: Path, samples: Path | None = None, steps: int = 1100, batch: int = 32, seed: int = 2
) -> dict[str, float]:
    """Train and save `target`.

    Args:
        target: the model's folder.
        vae: the world's autoencoder.
        samples: models' samples (see `ModelSamples`); the odd half is used.
        steps: updates, of `batch` groups of three images.

    Returns:
        Seconds taken; the shares of `measure_naming`; and, on fresh compositions of pairs that the judge has not seen,
        the share of pairs in the right order, a kind at a time.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    tokenizer = build_tokenizer()
    captions = CaptionIds(CaptionTokenizer(tokenizer))
    model = JudgeModel(JudgeConfig(vocabulary_size=len(tokenizer))).to(memory_format=torch.channels_last).train()
    optimizer = Optimizer(model, steps, matrix_rate=3e-3, rate=4e-3)
    started = time.perf_counter()
    drawn = ModelSamples(samples, half=1) if samples is not None else None
    groups = Groups(judge_pairs(seen=True), DEGRADATIONS, load_vae(vae), drawn, generator)
    for step in range(steps):
        images, shown, trusted = groups.draw(batch)
        images = images + NOISE_FLOOR * torch.randn(images.shape, generator=generator)
        named = torch.cat([shown[None], wrong_pairs(shown, generator)])
        texts = captions.draw(named, generator)
        with native_autocast():
            seen = model.image_features(images.flatten(0, 1) * 2 - 1).unflatten(0, images.shape[:2])
            read = model.text_features(texts.flatten(0, 1)).unflatten(0, texts.shape[:2])
            # A sample may show something else than it should, so names are learnt from compositions alone.
            naming = naming_loss(model, seen[0], shown) + naming_loss(model, seen[1, :trusted], shown[:trusted])
            loss = group_loss(seen, read, model.parts, named, trusted) + 0.3 * naming
        optimizer.step(loss)
        if step % 25 == 0:
            seconds = time.perf_counter() - started
            print(f"judge {step:5d} loss {loss.item():.3f} naming {naming.item() / 2:.3f} {seconds:.0f}s", flush=True)
    seconds = time.perf_counter() - started
    model.to(memory_format=torch.contiguous_format).eval()
    measured = measure_order(model, judge_pairs(seen=False), captions.canonical, groups, DEGRADATIONS)
    measured.update(measure_naming(model, groups))
    model.half().save_pretrained(target)
    tokenizer.save_pretrained(target)
    return {"seconds": seconds, **measured}
