"""Ways to spoil an image, from not at all to badly, that `emoji-preference` learns to dislike.

Each takes images in [0, 1], a severity in [0, 1] for each, and a source of randomness. Severity 0 changes nothing, and
what is drawn does not depend on the severity: two calls from the same state of the source spoil an image in the same
way, more or less. The judge learns from `degrade_judge`, which shares no code with this file.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

Batch = Float[Tensor, "batch 3 size size"]
Severity = Float[Tensor, " batch"]
Degradation = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def column(values: Shaped[Tensor, " batch"]) -> Shaped[Tensor, "batch 1 1 1"]:
    """One value for each image, ready to multiply a batch."""
    return values[:, None, None, None]


def smooth_field(
    batch: int, channels: int, cells: int, size: int, generator: torch.Generator
) -> Float[Tensor, "batch channels size size"]:
    """Normal noise on `cells` x `cells` points, interpolated to `size` x `size`."""
    coarse = torch.randn(batch, channels, cells, cells, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)


def displace(images: Batch, offset: Float[Tensor, "batch 2 #size #size"]) -> Batch:
    """Read every pixel `offset` (x, y; in pixels) away from its place."""
    size = images.shape[-1]
    axis = (torch.arange(size) + 0.5) * 2 / size - 1
    base = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))
    grid = (base + offset * 2 / size).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, align_corners=False, padding_mode="border")


def gaussian_blur(images: Batch, sigma: Float[Tensor, " batch"], radius: int = 8) -> Batch:
    """Blur each image with its own deviation in pixels; a deviation of 0 leaves it as it is."""
    batch, channels, height, width = images.shape
    taps = torch.arange(-radius, radius + 1).float()
    kernel = torch.exp(-0.5 * (taps / sigma[:, None].clamp(min=1e-3)).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(images.reshape(1, batch * channels, height, width), [radius] * 4, mode="reflect")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=batch * channels)
    return F.conv2d(flat, kernel[:, None, None, :], groups=batch * channels).reshape(images.shape)


def soft_mask(images: Batch, severity: Severity, generator: torch.Generator, cells: int = 5) -> Tensor:
    """A random soft-edged region that grows with severity, `(B, 1, size, size)` in [0, 1]; empty at 0."""
    field = smooth_field(len(images), 1, cells, images.shape[-1], generator)
    grown = torch.sigmoid((field - 1.6 + 1.4 * column(severity)) / 0.12)
    return grown * (4 * column(severity)).clamp(max=1)


def blur(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Gaussian blur of up to 2.5 pixels."""
    return gaussian_blur(images, 2.5 * severity)


def noise(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Normal noise of deviation up to 0.25, white or of a grain of two pixels."""
    batch, _, size, _ = images.shape
    white = torch.randn(images.shape, generator=generator)
    grain = smooth_field(batch, 3, size // 2, size, generator)
    coarse = column(torch.rand(batch, generator=generator) < 0.5)
    return images + 0.25 * column(severity) * torch.where(coarse, grain, white)


def ragged(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Outlines frayed by a displacement field of two to three pixels' grain."""
    batch, _, size, _ = images.shape
    fine = smooth_field(batch, 2, size // 2, size, generator)
    coarse = smooth_field(batch, 2, size // 3, size, generator)
    pick = column(torch.rand(batch, generator=generator) < 0.5)
    return displace(images, 2.5 * column(severity) * torch.where(pick, fine, coarse))


def warp(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Shapes bent by a slowly changing displacement field."""
    batch, _, size, _ = images.shape
    coarse = smooth_field(batch, 2, 5, size, generator)
    medium = smooth_field(batch, 2, 9, size, generator)
    pick = column(torch.rand(batch, generator=generator) < 0.5)
    return displace(images, column(severity) * torch.where(pick, 6 * coarse, 4 * medium))


def smear(images: Batch, severity: Severity, generator: torch.Generator, copies: int = 6) -> Batch:
    """Motion blur in one direction of up to 14 pixels, in a region."""
    angle = 2 * torch.pi * torch.rand(len(images), generator=generator)
    direction = torch.stack([angle.cos(), angle.sin()], 1)[:, :, None, None]
    region = soft_mask(images, torch.full_like(severity, 0.9), generator)
    step = region * direction * 14 * column(severity) / copies
    return torch.stack([displace(images, step * k) for k in range(copies)]).mean(0)


def blocks(images: Batch, severity: Severity, generator: torch.Generator, block: int = 4) -> Batch:
    """Patches fade to their mean colour."""
    batch, _, size, _ = images.shape
    flat = F.interpolate(F.avg_pool2d(images, block), scale_factor=block, mode="nearest")
    chosen = (torch.rand(batch, 1, size // block, size // block, generator=generator) < 0.6).float()
    return torch.lerp(images, flat, column(severity) * F.interpolate(chosen, scale_factor=block, mode="nearest"))


def broken_patches(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Square patches moved by up to a few pixels each, with hard seams."""
    batch, _, size, _ = images.shape
    offset = torch.randn(batch, 2, 8, 8, generator=generator)
    return displace(images, 4 * column(severity) * F.interpolate(offset, size=(size, size), mode="nearest"))


def bleed(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Colour runs over outlines: chroma blurred and shifted, luma kept."""
    luma = images.mean(1, keepdim=True)
    shift = torch.randn(len(images), 2, 1, 1, generator=generator)
    shifted = displace(images - luma, (3 * column(severity) * shift).expand(-1, -1, *images.shape[-2:]))
    return luma + gaussian_blur(shifted, 4 * severity)


def erase(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """A region that grows with severity is painted over with the background's colour, read off the border."""
    border = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)
    behind = border.median(-1).values[:, :, None, None]
    return torch.lerp(images, behind, soft_mask(images, severity, generator))


def ghost(images: Batch, severity: Severity, generator: torch.Generator, copies: int = 3) -> Batch:
    """Shifted copies shine through, as in the mean over many places."""
    total = images * 0.4
    for _ in range(copies):
        shift = torch.randn(len(images), 2, 1, 1, generator=generator) * 5 * column(severity)
        total = total + 0.6 / copies * displace(images, shift.expand(-1, -1, *images.shape[-2:]))
    return total


def spots(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Small blots of other colours."""
    batch, _, size, _ = images.shape
    where = torch.sigmoid((smooth_field(batch, 1, size // 4, size, generator) - 1.5) / 0.1)
    colours = smooth_field(batch, 3, size // 8, size, generator).mul(0.4).add(0.5).clamp(0, 1)
    return torch.lerp(images, colours, column(severity) * where)


def tone(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Too much or too little contrast, saturation and brightness. Without it a reward loves gaudy images."""
    draw = 2 * torch.rand(3, len(images), generator=generator) - 1
    contrast, saturation, brightness = (column(amount * severity) for amount in draw)
    grey = images.mean(1, keepdim=True)
    coloured = grey + (images - grey) * torch.exp(1.2 * saturation)
    middle = images.mean((1, 2, 3), keepdim=True)
    return middle + (coloured - middle) * torch.exp(0.8 * contrast) + 0.25 * brightness


def oversharpen(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Unsharp masking far too strong. Without it a reward that dislikes blur loves halos."""
    radius = 0.7 + 1.3 * torch.rand(len(images), generator=generator)
    return images + 3 * column(severity) * (images - gaussian_blur(images, radius))


DEGRADATIONS: dict[str, Degradation] = {
    function.__name__: function
    for function in (
        blur, noise, ragged, warp, smear, blocks, broken_patches, bleed, erase, ghost, spots, tone, oversharpen,
    )
}  # fmt: skip
"""All of them by name. Results may leave [0, 1]; clamp them after the last one."""
