"""Stage `vae`: a tiny autoencoder, 64x64x3 to 32x32x4, and the latents of the training compositions."""

from __future__ import annotations

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from ..captions import BACKGROUNDS, emoji, pairs
from ..compose import compose

LATENT_NOISE = 0.06
"""Noise on the latents while training, in units of their deviation: the decoder must not read meaning into less."""


def build_vae() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(16, 16),
        decoder_block_out_channels=(16, 16),
        num_encoder_blocks=(1, 2),
        num_decoder_blocks=(2, 1),
        latent_channels=4,
    )


def random_pairs(count: int, generator: torch.Generator, held_out: bool | None = False) -> tuple[Tensor, Tensor]:
    """Indices of random (emoji, background) pairs; `held_out=None` draws from all pairs."""
    if held_out is None:
        table = torch.cartesian_prod(torch.arange(len(emoji())), torch.arange(len(BACKGROUNDS)))
    else:
        table = torch.tensor(pairs(held_out))
    chosen = table[torch.randint(len(table), (count,), generator=generator)]
    return chosen[:, 0], chosen[:, 1]


def train_vae(target: Path, steps: int = 3600, batch: int = 32, seed: int = 0) -> dict[str, float]:
    """Train and save the autoencoder.

    The loss is the mean squared error plus a little absolute error, with noise on the latents, and a pull of each
    latent channel to zero mean and unit deviation, so that `PixArtAlphaPipeline`, which scales latents and never
    shifts them, sees standardised ones.

    Returns:
        Seconds taken and the reconstruction's PSNR in dB on fresh compositions of held-out pairs.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    vae = build_vae().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    started = time.perf_counter()
    for step in range(steps):
        images = (
            compose(*random_pairs(batch, generator), generator)
            .mul(2)
            .sub(1)
            .contiguous(memory_format=torch.channels_last)
        )
        latents = vae.encoder(images)
        moments = latents.mean((0, 2, 3)).square().mean() + (latents.std((0, 2, 3)) - 1).square().mean()
        decoded = vae.decoder(latents + LATENT_NOISE * torch.randn_like(latents))
        loss = F.mse_loss(decoded, images) + 0.1 * F.l1_loss(decoded, images) + 0.02 * moments
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"vae {step:5d} loss {loss.item():.4f} {time.perf_counter() - started:.0f}s", flush=True)
    vae = vae.to(memory_format=torch.contiguous_format).eval()
    with torch.no_grad():
        images = compose(*random_pairs(256, generator, held_out=True), generator).mul(2).sub(1)
        latents = vae.encoder(images)
        psnr = -10 * torch.log10(F.mse_loss(vae.decoder(latents).clamp(-1, 1), images) / 4)
        vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    vae.half().save_pretrained(target)
    return {"seconds": time.perf_counter() - started, "psnr_db": psnr.item()}


@torch.no_grad()
def build_latents(vae: AutoencoderTiny, jitters: int, seed: int = 1) -> dict[str, Tensor]:
    """Scaled latents of every training pair under `jitters` draws of place and size.

    Returns:
        `latents`: float16, `(704 * jitters, 4, 32, 32)`; `emoji` and `background`: the pair of each, int64.
    """
    generator = torch.Generator().manual_seed(seed)
    table = torch.tensor(pairs(held_out=False))
    vae = vae.float().eval().to(memory_format=torch.channels_last)
    parts = []
    for _ in range(jitters):
        for chunk in table.split(176):
            images = compose(chunk[:, 0], chunk[:, 1], generator).mul(2).sub(1)
            parts.append((vae.encoder(images) * vae.config.scaling_factor).half())
    rows = table.repeat(jitters, 1)
    return {"latents": torch.cat(parts), "emoji": rows[:, 0].contiguous(), "background": rows[:, 1].contiguous()}
