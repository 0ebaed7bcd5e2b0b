"""Ways to spoil an image that `emoji-judge` learns to dislike: none of those in `degrade`, nor any of their code.

The contract is the same: images in [0, 1], a severity in [0, 1] for each, a source of randomness; 0 changes nothing,
and what is drawn does not depend on the severity.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Batch = Float[Tensor, "batch 3 size size"]
Severity = Float[Tensor, " batch"]


def _mix(before: Tensor, after: Tensor, amount: Tensor) -> Tensor:
    return before + (after - before) * amount.reshape(-1, 1, 1, 1)


@cache
def dct_matrix(size: int) -> Float[Tensor, "size size"]:
    """The orthonormal DCT-II matrix."""
    k = torch.arange(size).float()
    matrix = torch.cos(torch.pi / size * (k[None] + 0.5) * k[:, None]) * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix


def jpeg(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Coefficients of 8x8 cosine transforms quantised coarsely, more so at high frequencies."""
    dct = dct_matrix(8)
    tiles = images.unfold(2, 8, 8).unfold(3, 8, 8)
    coefficients = dct @ tiles @ dct.T
    order = torch.arange(8)[:, None] + torch.arange(8)[None]
    step = severity.reshape(-1, 1, 1, 1, 1, 1) * (0.05 + 0.12 * order) + 1e-6
    tiles = dct.T @ ((coefficients / step).round() * step) @ dct
    return tiles.permute(0, 1, 2, 4, 3, 5).reshape(images.shape)


def median(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Fades to the 3x3 median taken twice, which rounds corners and eats thin lines."""
    filtered = images
    for _ in range(2):
        windows = F.pad(filtered, [1] * 4, mode="replicate").unfold(2, 3, 1).unfold(3, 3, 1)
        filtered = windows.reshape(*images.shape, 9).median(-1).values
    return _mix(images, filtered, severity)


def posterise(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Fades to three to five levels a channel, with a random offset."""
    levels = torch.randint(2, 5, (len(images), 1, 1, 1), generator=generator).float()
    offset = torch.rand(len(images), 3, 1, 1, generator=generator) - 0.5
    return _mix(images, ((images * levels + offset).round() - offset) / levels, severity)


def scatter(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Every pixel replaced by one drawn from its neighbourhood of up to 3 pixels' reach."""
    batch, channels, height, width = images.shape
    reach = (2 * torch.rand(batch, 2, height, width, generator=generator) - 1) * 3.5 * severity.reshape(-1, 1, 1, 1)
    rows = (torch.arange(height)[:, None] + reach[:, 0].round().long()).clamp(0, height - 1)
    columns = (torch.arange(width) + reach[:, 1].round().long()).clamp(0, width - 1)
    index = (rows * width + columns).reshape(batch, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, index).reshape(images.shape)


def thicken(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Fades to the dilation or to the erosion by 5x5: lines swell or vanish."""
    sign = torch.where(torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5, 1.0, -1.0)
    return _mix(images, sign * F.max_pool2d(sign * images, 5, stride=1, padding=2), severity)


def wavy(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Rows and columns swing like a sine."""
    batch, _, height, _ = images.shape
    period = 6 + 18 * torch.rand(batch, 2, 1, generator=generator)
    phase = 2 * torch.pi * torch.rand(batch, 2, 1, generator=generator)
    place = torch.arange(height).float()
    swing = torch.sin(2 * torch.pi * place / period + phase) * (6 / height) * severity.reshape(-1, 1, 1)
    axis = (2 * place + 1) / height - 1
    x = axis[None, None, :] + swing[:, 0, :, None]
    y = axis[None, :, None] + swing[:, 1, None, :]
    grid = torch.stack(torch.broadcast_tensors(x, y), dim=-1)
    return F.grid_sample(images, grid, align_corners=False, padding_mode="reflection")


def low_pass(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """High frequencies of the whole image's cosine transform damped smoothly: softness with ringing."""
    size = images.shape[-1]
    dct = dct_matrix(size)
    frequency = torch.arange(size).float()
    radius = (frequency[:, None].square() + frequency[None].square()).sqrt() / size
    cut = 1.5 * (0.1 / 1.5) ** severity.reshape(-1, 1, 1, 1)
    keep = torch.where(severity.reshape(-1, 1, 1, 1) > 0, 1 / (1 + (radius / cut) ** 8), torch.ones(()))
    return dct.T @ ((dct @ images @ dct.T) * keep) @ dct


def cut_and_paste(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Three rectangles, growing with severity, are covered with pieces from elsewhere in the image."""
    size = images.shape[-1]
    place = torch.arange(size)
    for _ in range(3):
        corner = torch.randint(8, size - 28, (len(images), 2, 1), generator=generator)
        extent = (torch.randint(6, 21, (len(images), 2, 1), generator=generator) * severity.reshape(-1, 1, 1)).round()
        inside = (place >= corner) & (place < corner + extent)
        mask = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
        moved = [int(place) for place in torch.randint(8, size - 8, (2,), generator=generator)]
        images = torch.where(mask, images.roll(moved, (2, 3)), images)
    return images


def misregister(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Colour planes printed up to 4 pixels apart."""
    batch, channels, size, _ = images.shape
    shift = (2 * torch.rand(batch * channels, 2, generator=generator) - 1) * 8 / size
    theta = torch.eye(2, 3).repeat(batch * channels, 1, 1)
    theta[:, :, 2] = shift * severity.repeat_interleave(channels)[:, None]
    planes = images.reshape(-1, 1, size, size)
    grid = F.affine_grid(theta, list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, align_corners=False, padding_mode="border").reshape(images.shape)


def gamma(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Every channel bent by its own gamma between 1/3 and 3."""
    exponent = 3 ** ((2 * torch.rand(len(images), 3, 1, 1, generator=generator) - 1) * severity.reshape(-1, 1, 1, 1))
    return images.clamp(1e-4, 1) ** exponent


def stripes(images: Batch, severity: Severity, generator: torch.Generator) -> Batch:
    """Rows shifted against one another, in bands of four."""
    size = images.shape[-1]
    bands = (2 * torch.rand(len(images), size // 4, generator=generator) - 1).repeat_interleave(4, 1)
    offset = (bands * 6 * severity[:, None]).round().long()
    columns = (torch.arange(size) + offset[:, :, None]).clamp(0, size - 1)
    return images.gather(3, columns[:, None].expand(-1, 3, -1, -1))


DEGRADATIONS = {
    function.__name__: function
    for function in (
        jpeg, median, posterise, scatter, thicken, wavy, low_pass, cut_and_paste, misregister, gamma, stripes,
    )
}  # fmt: skip
"""All of them by name. Results may leave [0, 1]; clamp them after the last one."""
