"""Stage `clip`: a small CLIP on captioned compositions, the reward `emoji-clip`."""

from __future__ import annotations

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from dipp_toolkit.utils.precision import native_autocast

from ..captions import BACKGROUNDS, TEMPLATES, caption, emoji, pairs
from ..compose import SIZE
from ..degrade import gaussian_blur
from ..rewards import embed_captions, embed_pixels
from ..text import EOS, CaptionTokenizer
from .fitting import Optimizer
from .ordered import JITTERS, compose_bank, distinct_rows
from .pixart import TOKENS, build_tokenizer

NAMES = 3
"""Wordings of a name that captions draw from (fewer names repeat)."""


def build_clip(vocabulary_size: int) -> CLIPModel:
    """About 0.9 M parameters: a ViT on 8x8 patches and a causal text transformer."""
    text = {
        "vocab_size": vocabulary_size, "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 3, "max_position_embeddings": TOKENS, "projection_dim": 96, "pad_token_id": 0,
        "eos_token_id": EOS, "bos_token_id": None,
    }  # fmt: skip
    vision = {
        "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
        "image_size": SIZE, "patch_size": 8, "projection_dim": 96,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=96)
    model: CLIPModel = CLIPModel._from_config(config, attn_implementation="eager")
    return model


class CaptionIds:
    """Token ids of every wording of every pair, `(emoji, background, name, template, tokens)`."""

    def __init__(self, tokenizer: CaptionTokenizer):
        shape = (len(emoji()), len(BACKGROUNDS), NAMES, len(TEMPLATES))
        texts = [caption(*index) for index in torch.cartesian_prod(*map(torch.arange, shape)).tolist()]
        self.ids = tokenizer(texts).unflatten(0, shape)

    def draw(self, pairs: Tensor, generator: torch.Generator) -> Tensor:
        """A random wording of each pair `(..., 2)`, the canonical template half of the time."""
        shape = pairs.shape[:-1]
        name = torch.randint(NAMES, shape, generator=generator)
        template = torch.randint(2 * len(TEMPLATES) - 1, shape, generator=generator) - len(TEMPLATES) + 1
        return self.ids[pairs[..., 0], pairs[..., 1], name, template.clamp(min=0)]

    def canonical(self, pairs: Tensor) -> Tensor:
        """The canonical caption of each pair `(..., 2)`."""
        return self.ids[pairs[..., 0], pairs[..., 1], 0, 0]


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift (up to 4 pixels, the batch as one), colour, blur and noise. Images in [0, 1]."""
    batch, _, height, width = images.shape

    def draw(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, 1, 1, generator=generator)

    top, left = torch.randint(9, (2,), generator=generator).tolist()
    images = F.pad(images, [4] * 4, mode="replicate")[..., top : top + height, left : left + width]
    images = images * (0.92 + 0.16 * draw(3)) + 0.08 * (draw(1) - 0.5)
    # Half of the images are sharp and half are clean, so that these stay the usual case.
    blur, noise = (2 * torch.rand(2, batch, generator=generator) - 1).clamp(min=0)
    images = gaussian_blur(images, 1.5 * blur)
    return images + 0.15 * noise[:, None, None, None] * torch.randn(images.shape, generator=generator)


@torch.no_grad()
def measure_clip(model: CLIPModel, captions: CaptionIds, generator: torch.Generator) -> dict[str, float]:
    """Naming by caption on fresh compositions of all held-out pairs.

    Returns:
        `naming`: how often the right canonical caption scores above those of all other pairs; `naming_emoji` and
        `naming_background`: how often the best caption has the right one; `reward_right`, `reward_other`: mean rewards.
    """
    held = torch.tensor(pairs(held_out=True))
    every = torch.cartesian_prod(torch.arange(len(emoji())), torch.arange(len(BACKGROUNDS)))
    images = compose_bank(held, 1, generator)[:, 0].float() / 127.5 - 1
    model.eval()
    cosines = embed_pixels(model, images) @ embed_captions(model, captions.canonical(every)).T
    guesses = every[cosines.argmax(1)]
    right = cosines[torch.arange(len(held)), held[:, 0] * len(BACKGROUNDS) + held[:, 1]]
    return {
        "naming": (guesses == held).all(1).float().mean().item(),
        "naming_emoji": (guesses == held)[:, 0].float().mean().item(),
        "naming_background": (guesses == held)[:, 1].float().mean().item(),
        "reward_right": 100 * right.mean().item(),
        "reward_other": 100 * cosines.mean().item(),
    }


def train_clip(target: Path, steps: int = 450, batch: int = 128, seed: int = 0) -> dict[str, float]:
    """Train contrastively and save `target`. All pairs of a batch are different, so that every other caption is wrong.

    Returns:
        Seconds taken and the measurements of `measure_clip`.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    tokenizer = build_tokenizer()
    captions = CaptionIds(CaptionTokenizer(tokenizer))
    model = build_clip(len(tokenizer)).train()
    optimizer = Optimizer(model, steps, matrix_rate=3e-3, rate=1.5e-3)
    started = time.perf_counter()
    table = torch.tensor(pairs(held_out=False))
    bank = compose_bank(table, JITTERS, generator)
    for step in range(steps):
        rows = distinct_rows(len(table), batch, generator)
        jitter = torch.randint(JITTERS, (batch,), generator=generator)
        pixels = augment(bank[rows, jitter].float() / 255, generator) * 2 - 1
        with native_autocast():
            image, text = embed_pixels(model, pixels), embed_captions(model, captions.draw(table[rows], generator))
        logits = model.logit_scale.exp().clamp(max=60) * image @ text.T
        labels = torch.arange(batch)
        loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
        optimizer.step(loss)
        if step % 25 == 0:
            seconds = time.perf_counter() - started
            print(
                f"clip {step:5d} loss {loss.item():.3f} scale {model.logit_scale.exp().item():.1f} {seconds:.0f}s",
                flush=True,
            )
    measured = {"seconds": time.perf_counter() - started, **measure_clip(model, captions, generator)}
    model.half().save_pretrained(target)
    tokenizer.save_pretrained(target)
    return measured
