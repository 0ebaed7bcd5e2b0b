r"""Between Qwen-Image's latents and pixels.

The autoencoder is one of videos: its latents and pixels have an axis of frames, of which an image is one. The network's
latents are standardised channel by channel, $y = z \sigma + \mu$, by `latents_std` and `latents_mean`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from dipp_toolkit.models.autoencoding import Autoencoding, Pixels
from dipp_toolkit.models.latent_space import STATISTICS, Latents, LatentSpace

CHANNELS = 16
"""Where the configuration says none."""


class QwenImageAutoencoding(Autoencoding):
    """An `AutoencoderKLQwenImage`, as its pipelines use it."""

    tiny: ClassVar[bool] = False
    recomputes_tiles: ClassVar[bool] = False

    def latent_channels(self, config: Mapping[str, Any]) -> int:
        return int(config.get("z_dim", CHANNELS))

    def pixels_per_latent(self, config: Mapping[str, Any]) -> int:
        """Every level but the last one halves; those that halve the frames as well are named one by one."""
        return int(2 ** len(config["temperal_downsample"]))

    def space(self, config: Mapping[str, Any]) -> LatentSpace:
        return LatentSpace.from_config({**config, "latent_channels": self.latent_channels(config)}, (STATISTICS,))

    def decode(self, vae: Any, latents: Latents) -> Pixels:
        """Pixels of the network's latents, with a gradient.

        The autoencoder's own `decode` ends in a clamp to [-1, 1], which has no gradient outside. Its decoder is called
        here instead, without that clamp; the first frame of a video is decoded as an image is. In tiles it is `decode`.
        """
        own = self.space(vae.config).decodable(latents).to(next(vae.parameters()).dtype)[:, :, None]
        frames: Tensor = vae.decode(own, return_dict=False)[0] if vae.use_tiling else _decoded(vae, own)
        return frames[:, :, 0]

    def encode(self, vae: Any, pixels: Pixels) -> Latents:
        weight = next(vae.parameters())
        frames = vae.encode(pixels.to(weight.device, weight.dtype)[:, :, None]).latent_dist.mean
        return self.space(vae.config).encoded(frames[:, :, 0].float())


def _decoded(vae: Any, own: Tensor) -> Tensor:
    frames: Tensor = vae.decoder(vae.post_quant_conv(own))
    return frames
