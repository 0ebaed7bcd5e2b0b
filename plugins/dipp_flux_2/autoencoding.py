r"""Between Flux.2's latents and pixels.

The autoencoder's own latents $y$ have 32 channels at an eighth of the image's side. The network's, $z$, are their
patches of two by two, 128 channels at a sixteenth, standardised by the running statistics of the autoencoder's batch
norm, which are weights and not settings: $y = \mathrm{unpatch}(z \sqrt{v + \epsilon} + m)$.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from dipp_toolkit.models.autoencoding import Autoencoding, Pixels
from dipp_toolkit.models.latent_space import Latents, LatentSpace

PATCH = (2, 2)
"""Where the configuration says none."""


class Flux2Autoencoding(Autoencoding):
    """An `AutoencoderKLFlux2`, as its pipelines use it."""

    tiny: ClassVar[bool] = False

    def latent_channels(self, config: Mapping[str, Any]) -> int:
        return int(config.get("latent_channels", 32)) * math.prod(_patch(config))

    def pixels_per_latent(self, config: Mapping[str, Any]) -> int:
        return super().pixels_per_latent(config) * _patch(config)[0]

    def space(self, config: Mapping[str, Any]) -> LatentSpace:
        """Nothing of the configuration: the statistics are weights."""
        return LatentSpace()

    def decode(self, vae: Any, latents: Latents) -> Pixels:
        mean, std = _statistics(vae)
        own = pixel_shuffle(latents * std + mean, _patch(vae.config)[0])
        pixels: Tensor = vae.decode(own.to(next(vae.parameters()).dtype), return_dict=False)[0]
        return pixels

    def encode(self, vae: Any, pixels: Pixels) -> Latents:
        weight = next(vae.parameters())
        own = vae.encode(pixels.to(weight.device, weight.dtype)).latent_dist.mean
        mean, std = _statistics(vae)
        return (pixel_unshuffle(own.float(), _patch(vae.config)[0]) - mean) / std


def _patch(config: Mapping[str, Any]) -> tuple[int, int]:
    height, width = config.get("patch_size", PATCH)
    return int(height), int(width)


def _statistics(vae: Any) -> tuple[Float[Tensor, "1 channels 1 1"], Float[Tensor, "1 channels 1 1"]]:
    """Mean and deviation of every channel of the network's latents, float32."""
    mean, variance = (item.float().reshape(1, -1, 1, 1) for item in (vae.bn.running_mean, vae.bn.running_var))
    return mean, (variance + vae.config.batch_norm_eps).sqrt()
