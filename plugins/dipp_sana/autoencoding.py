"""Between latents and pixels by SANA's deep compression autoencoder, diffusers' `AutoencoderDC`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from dipp_toolkit.models.autoencoding import Autoencoding, Pixels
from dipp_toolkit.models.latent_space import Latents


class ChannelNorm(nn.Module):
    """A norm of the last axis, over the channels of an image."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, images: Tensor) -> Tensor:
        normed: Tensor = self.norm(images.movedim(1, -1)).movedim(-1, 1)
        return normed


@dataclass(frozen=True)
class SanaAutoencoding(Autoencoding):
    """An `AutoencoderDC`, whose latents are a function of the image: it knows no law of them.

    As published it makes one position of 32 by 32 pixels, with 32 channels (Chen et al. 2024, arXiv 2410.10733).
    """

    decodes_with: tuple[str, ...] = ()
    tiny: ClassVar[bool] = False

    def latent_channels(self, config: Mapping[str, Any]) -> int:
        return int(config.get("latent_channels", 32))

    def pixels_per_latent(self, config: Mapping[str, Any]) -> int:
        return int(2 ** (len(config["encoder_block_out_channels"]) - 1))

    def recompute(self, vae: Any, recomputed: Callable[[nn.Module], nn.Module]) -> bool:
        decoder = vae.decoder
        for row in decoder.up_blocks:
            for number, layer in enumerate(row):
                row[number] = recomputed(layer)
        last = nn.Sequential(ChannelNorm(decoder.norm_out), decoder.conv_act, decoder.conv_out)
        decoder.norm_out, decoder.conv_act, decoder.conv_out = nn.Identity(), nn.Identity(), recomputed(last)
        return True

    def encode(self, vae: Any, pixels: Pixels) -> Latents:
        weight = next(vae.parameters())
        own = vae.encode(pixels.to(weight.device, weight.dtype)).latent
        return self.space(vae.config).encoded(own.float())
