r"""Between a network's latents and pixels: how the pipelines of a class call their autoencoder.

Most have an `AutoencoderKL`, whose latents are normalised by its configuration (`latent_space`). A family with another
autoencoder subclasses `Autoencoding` and has it as its attribute `autoencoding`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from .family import DecodingSettings, OwnAutoencoding, PipelineFamily
from .latent_space import DECODES_WITH, Latents, LatentSpace

Pixels = Float[Tensor, "batch 3 height width"]
"""Around [-1, 1], unclamped."""


@dataclass(frozen=True)
class Autoencoding:
    """An `AutoencoderKL`, as its pipelines use it.

    Attributes:
        decodes_with: which settings of its configuration they look at beside `scaling_factor`; see `latent_space`.
        tiny: whether an `AutoencoderTiny` of the same latents may stand in for it.
        recomputes_tiles: whether what it makes of a tile can be made again in the backward pass.
    """

    decodes_with: tuple[str, ...] = DECODES_WITH
    tiny: ClassVar[bool] = True
    recomputes_tiles: ClassVar[bool] = True

    def latent_channels(self, config: Mapping[str, Any]) -> int:
        """Channels of the latents that the denoising network is given.

        Args:
            config: the autoencoder's.
        """
        return int(config.get("latent_channels", 4))

    def pixels_per_latent(self, config: Mapping[str, Any]) -> int:
        """Pixels a side of one position of a latent: every level of the autoencoder but the last one halves.

        Args:
            config: the autoencoder's.
        """
        levels = config.get("block_out_channels") or config["decoder_block_out_channels"]
        return int(2 ** (len(levels) - 1))

    def latent_side(self, config: Mapping[str, Any], stock_side: int, patch: int = 1) -> tuple[int, int]:
        """Height and width of a latent, for networks that have no `sample_size` of their own.

        Args:
            config: the autoencoder's; its `sample_size`, in pixels, says it.
            stock_side: of the latents that the stock pipeline draws, where the configuration says none.
            patch: side of the patch that is one token; both sides are multiples of it.
        """
        size = config.get("sample_size")
        if size is None:
            return stock_side, stock_side
        height, width = size if isinstance(size, Sequence) else (size, size)
        token = patch * self.pixels_per_latent(config)
        return patch * (int(height) // token), patch * (int(width) // token)

    def size_arguments(self, config: Mapping[str, Any], stock_side: int, patch: int = 1) -> dict[str, int]:
        """The size in the stock pipeline's call, where it is not the one that it draws by itself; see `latent_side`."""
        height, width = self.latent_side(config, stock_side, patch)
        pixels = self.pixels_per_latent(config)
        return {} if height == width == stock_side else {"height": height * pixels, "width": width * pixels}

    def space(self, config: Mapping[str, Any]) -> LatentSpace:
        """How the network's latents are normalised.

        Args:
            config: the autoencoder's.

        Raises:
            RequestError: its statistics are not one number a channel.
        """
        return LatentSpace.from_config(config, self.decodes_with)

    def decode(self, vae: Any, latents: Latents) -> Pixels:
        """Pixels of the network's latents, with a gradient.

        Args:
            vae: the autoencoder.
            latents: float32.
        """
        decodable = self.space(vae.config).decodable(latents).to(next(vae.parameters()).dtype)
        pixels: Tensor = vae.decode(decodable, return_dict=False)[0]
        return pixels

    def recompute(self, vae: Any, recomputed: Callable[[nn.Module], nn.Module]) -> bool:
        """Have the layers of a decoder of its own kind recomputed in the backward pass one at a time.

        Args:
            vae: the autoencoder, a copy that shares its weights.
            recomputed: makes a layer one that is.

        Returns:
            Whether it is done; False leaves it to what is known of diffusers' decoders.
        """
        return False

    def encode(self, vae: Any, pixels: Pixels) -> Latents:
        """The network's latents of pixels, float32.

        Of an autoencoder that gives a normal law for each image, its mean is taken: latents are encoded once, and what
        its small variance would add is far below the noise that a denoiser learns from.

        Args:
            vae: the autoencoder.
            pixels: in [-1, 1].
        """
        weight = next(vae.parameters())
        encoded = vae.encode(pixels.to(weight.device, weight.dtype))
        own = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
        return self.space(vae.config).encoded(own.float())


def autoencoding_of(family: PipelineFamily) -> Autoencoding:
    """A family's own autoencoding; that of an `AutoencoderKL` where it has none."""
    if isinstance(family, OwnAutoencoding):
        return family.autoencoding
    return Autoencoding(tuple(family.decodes_with)) if isinstance(family, DecodingSettings) else Autoencoding()
