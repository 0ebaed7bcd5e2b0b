"""Latents to pixels, with a gradient: the plain decode, and ways to make it cheaper inside a reward.

What each costs in accuracy is measured by `benchmarks/decode_options/run.py`; see docs/memory.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .contained import is_there, user_path
from .errors import RequestError, first_line
from .folders import check_files, quiet_loading
from .pipeline_index import only_pickled, pickles_are_refused
from .precision import matching_autocast
from .roles import Images
from .sharing import weight_sharing_copy
from .weight_files import weights_in

Latents = Float[Tensor, "batch channels latent_height latent_width"]


@dataclass(frozen=True)
class DecodeOptions:
    """How the reward's decode saves memory and time; the defaults are the plain decode.

    Attributes:
        checkpointing: recompute the decoder's activations in the backward pass. Exact.
        tiling: decode overlapping tiles of half the side and blend them. Approximate at the seams.
        decoder: folder or hub id of an `AutoencoderTiny` to decode with instead. Approximate.
        resolution: decode images of about this many pixels a side, by shrinking the latents first. Approximate.
    """

    checkpointing: bool = False
    tiling: bool = False
    decoder: str | None = None
    resolution: int | None = None


@dataclass
class LatentDecoder:
    r"""A VAE's decoder as a function to pixels in [0, 1], differentiable with respect to the latents.

    $x = \mathrm{clamp}(D(z / s + b) / 2 + 1/2)$ with the VAE's scaling factor $s$ and shift $b$; the clamp is
    straight-through, so that a saturated pixel still hears that it should come back.

    Attributes:
        vae: any diffusers autoencoder with `decode`.
        resolution: latents are shrunk first, so that images have about this many pixels a side; None for their own.
    """

    vae: Any
    resolution: int | None = None
    pixels_per_latent: int = field(init=False)

    def __post_init__(self) -> None:
        config = self.vae.config
        channels = config.get("block_out_channels") or config.get("decoder_block_out_channels")
        self.pixels_per_latent = 2 ** (len(channels) - 1)

    def __call__(self, latents: Latents) -> Images:
        config = self.vae.config
        latents = self._shrunk(latents.float())
        shift = getattr(config, "shift_factor", None) or 0.0
        latents = (latents / config.scaling_factor + shift).to(next(self.vae.parameters()).dtype)
        with matching_autocast(self.vae, latents.device):
            pixels = self.vae.decode(latents, return_dict=False)[0]
        images = pixels.float() * 0.5 + 0.5
        return images.clamp(0, 1).detach() + (images - images.detach())

    def _shrunk(self, latents: Tensor) -> Tensor:
        if self.resolution is None:
            return latents
        height, width = latents.shape[-2:]
        side = max(1, round(self.resolution / self.pixels_per_latent))
        if side >= min(height, width):
            return latents
        ratio = side / min(height, width)
        size = (round(height * ratio), round(width * ratio))
        return F.interpolate(latents, size=size, mode="bicubic", antialias=True, align_corners=False)


def reward_decoder(vae: nn.Module, options: DecodeOptions) -> LatentDecoder:
    """The decoder that rewards see through.

    Args:
        vae: the reference's autoencoder; it is not changed, its weights are shared.
        options: what to trade.

    Raises:
        RequestError: the tiny decoder cannot be loaded or has other latents, or the autoencoder cannot do what is
            asked.
    """
    chosen: Any = load_tiny_decoder(options.decoder, vae) if options.decoder else weight_sharing_copy(vae)
    for wanted, method in ((options.tiling, "enable_tiling"), (options.checkpointing, "enable_gradient_checkpointing")):
        if not wanted:
            continue
        try:
            getattr(chosen, method)()
        except (AttributeError, NotImplementedError, ValueError) as error:
            raise RequestError(f"{type(chosen).__name__} has no {method}; leave the decode option out.") from error
    if options.tiling and type(chosen).__name__ == "AutoencoderTiny":
        raise RequestError(f"{type(chosen).__name__} cannot decode in tiles of another size; leave decode_tiling out.")
    if options.tiling:  # tiles of half the side the autoencoder was made for, or nothing would be cut at that side
        chosen.tile_latent_min_size = max(1, chosen.tile_latent_min_size // 2)
        chosen.tile_sample_min_size = max(1, chosen.tile_sample_min_size // 2)
    return LatentDecoder(chosen, options.resolution)


def load_tiny_decoder(name: str, vae: Any) -> nn.Module:
    """An `AutoencoderTiny` from a folder or hub id, such as `madebyollin/taesd`, to stand in for `vae`.

    Raises:
        RequestError: it cannot be loaded, is a pickle, or its latents have another number of channels.
    """
    from diffusers import AutoencoderTiny

    place = user_path(name) if is_there(name) else name
    if isinstance(place, Path) and place.is_dir():
        check_files(place, deep=False)
    pickled = only_pickled(place) if isinstance(place, Path) else None
    if pickled is not None:
        raise RequestError(pickles_are_refused("tiny decoder", pickled))
    weights = weights_in(place) if isinstance(place, Path) else None
    variant = None if weights is None else weights.variant
    try:
        with quiet_loading():
            tiny = AutoencoderTiny.from_pretrained(place, use_safetensors=True, variant=variant)
    except Exception as error:  # the hub's client and diffusers raise their own
        raise RequestError(f"The tiny decoder '{name}' cannot be loaded: {first_line(error)}") from error
    if tiny.config.latent_channels != vae.config.latent_channels:
        raise RequestError(
            f"The tiny decoder '{name}' has {tiny.config.latent_channels} latent channels, the reference's autoencoder "
            f"{vae.config.latent_channels}; they must share a latent space."
        )
    return tiny.eval().requires_grad_(False).to(next(vae.parameters()).device)  # type: ignore[no-any-return]
