"""Latents to pixels, with a gradient: the plain decode, and ways to make it cheaper inside a reward.

What each costs in accuracy is measured by `benchmarks/decode_options/run.py`; see docs/guide/real-models.md#memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import RequestError, first_line
from ..utils.deterministic import resized
from ..utils.images import Images
from ..utils.paths import is_there, user_path
from ..utils.precision import matching_autocast, narrowed_to
from .autoencoding import Autoencoding
from .files.folders import check_files, quiet_loading
from .files.safety import only_pickled, pickles_are_refused
from .files.weight_files import weights_in
from .latent_space import Latents, LatentSpace
from .weight_sharing import weight_sharing_copy


@dataclass(frozen=True)
class DecodeOptions:
    """How the reward's decode saves memory and time; the defaults are the plain decode.

    Attributes:
        checkpointing: recompute the decoder's activations in the backward pass, layer by layer. Exact.
        tiling: decode overlapping tiles of half the side and blend them. Approximate at the seams.
        decoder: folder or hub id of an `AutoencoderTiny` to decode with instead. Approximate.
        resolution: decode images of about this many pixels a side, by shrinking the latents first. Approximate.
    """

    checkpointing: bool = False
    tiling: bool = False
    decoder: str | None = None
    resolution: int | None = None


OVERSHOOT = 0.1
"""How far out of [0, 1] a reward may push a pixel before the image's clamp: see `RisingClamp`."""


class RisingClamp(torch.autograd.Function):
    r"""$\mathrm{clamp}(x, 0, 1)$, whose gradient is that of something that **rises**, a score say, not of a loss.

    The gradient $g$ of a pixel passes unless the pixel is further out than `OVERSHOOT` and a step along it would lead
    still further: where $x > 1.1$ it passes if $g < 0$, where $x < -0.1$ if $g > 0$.

    - The clamp's own gradient would leave a saturated pixel where it is for ever.
    - All of it, straight through, would push the pixel outwards for ever, which no image shows and no score rewards.
    - Held back from the very edge on, the gradients of a batch, which differ in sign by noise, lead saturated pixels
      inwards on average: $E[\min(g, 0)] < 0$ where $E[g] = 0$. Colours fade, and the alignment ends lower
      (docs/results/emoji-world.md has the numbers). Few pixels of a trained generator are further out than `OVERSHOOT`.

    Whoever lowers a score differentiates minus the score. Pixels that are infinite or no numbers come out as no
    numbers, so that they are noticed.
    """

    @staticmethod
    def forward(context: Any, pixels: Tensor) -> Tensor:
        context.save_for_backward((pixels > 1 + OVERSHOOT).to(torch.int8) - (pixels < -OVERSHOOT).to(torch.int8))
        return pixels.clamp(0, 1) + (pixels - pixels)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (outside,) = context.saved_tensors
        return gradient.masked_fill(outside * gradient > 0, 0)


@dataclass
class LatentDecoder:
    r"""A VAE's decoder as a function to pixels in [0, 1], differentiable with respect to the latents.

    $x = \mathrm{clamp}(D(z) / 2 + 1/2)$, where $D$ is `Autoencoding.decode` of the pipeline's class. A saturated pixel
    may be pulled back into the range, and out of it no further than a margin: see `RisingClamp`.

    Attributes:
        vae: any diffusers autoencoder with `decode`.
        resolution: latents are shrunk first, so that images have about this many pixels a side; None for their own.
        autoencoding: how its pipeline calls it.
    """

    vae: Any
    resolution: int | None = None
    autoencoding: Autoencoding = field(default_factory=Autoencoding)
    pixels_per_latent: int = field(init=False)
    space: LatentSpace = field(init=False)

    def __post_init__(self) -> None:
        self.pixels_per_latent = self.autoencoding.pixels_per_latent(self.vae.config)
        self.space = self.autoencoding.space(self.vae.config)

    def __call__(self, latents: Latents) -> Images:
        with self._arithmetic(latents.device):
            pixels = self.autoencoding.decode(self.vae, self._shrunk(latents.float()))
        images: Tensor = RisingClamp.apply(pixels.float() * 0.5 + 0.5)
        return images

    @contextmanager
    def _arithmetic(self, device: torch.device) -> Iterator[None]:
        """Autocast for the decoder's pass: none of float16 where its numbers grow out of float16's range."""
        if self.space.upcast and narrowed_to(device) is torch.float16:
            with torch.autocast(device.type, enabled=False):
                yield
            return
        with matching_autocast(self.vae, device):
            yield

    def _shrunk(self, latents: Tensor) -> Tensor:
        if self.resolution is None:
            return latents
        height, width = latents.shape[-2:]
        side = max(1, round(self.resolution / self.pixels_per_latent))
        if side >= min(height, width):
            return latents
        ratio = side / min(height, width)
        size = (round(height * ratio), round(width * ratio))
        return resized(latents, size, "bicubic")


def reward_decoder(vae: nn.Module, options: DecodeOptions, autoencoding: Autoencoding | None = None) -> LatentDecoder:
    """The decoder that rewards see through.

    Args:
        vae: the reference's autoencoder; it is not changed, its weights are shared.
        options: what to trade.
        autoencoding: how its pipeline calls it; that of an `AutoencoderKL` where None.

    Raises:
        RequestError: the tiny decoder cannot be loaded or has other latents, or the autoencoder cannot do what is
            asked.
    """
    autoencoding = autoencoding or Autoencoding()
    if options.decoder and not autoencoding.tiny:
        raise RequestError(
            f"The tiny decoder '{options.decoder}' cannot stand in for this reference's {type(vae).__name__}: tiny "
            "decoders are made for the latents of an AutoencoderKL. Leave decoder out."
        )
    if options.decoder and autoencoding.space(vae.config).normalised:  # type: ignore[arg-type]
        raise RequestError(
            f"The tiny decoder '{options.decoder}' cannot stand in for this reference's autoencoder, whose latents are "
            "normalised by latents_mean and latents_std: tiny decoders know a scaling_factor alone. Leave decoder out."
        )
    chosen: Any = load_tiny_decoder(options.decoder, vae) if options.decoder else weight_sharing_copy(vae)
    if options.checkpointing and options.tiling and not autoencoding.recomputes_tiles:
        raise RequestError(
            f"{type(chosen).__name__} keeps what it made of a tile while it decodes it, so that a tile cannot be "
            "recomputed. Leave decode_tiling or decode_checkpointing out."
        )
    whole_blocks = options.checkpointing and not (
        autoencoding.recompute(chosen, Recomputed) or _recompute_layers(chosen)
    )
    for wanted, method in ((options.tiling, "enable_tiling"), (whole_blocks, "enable_gradient_checkpointing")):
        if not wanted:
            continue
        try:
            getattr(chosen, method)()
        except (AttributeError, NotImplementedError, ValueError) as error:
            raise RequestError(f"{type(chosen).__name__} has no {method}; leave the decode option out.") from error
    if options.tiling and type(chosen).__name__ == "AutoencoderTiny":
        raise RequestError(f"{type(chosen).__name__} cannot decode in tiles of another size; leave decode_tiling out.")
    if options.tiling:  # tiles of half the side the autoencoder was made for, or nothing would be cut at that side
        for name in (*SQUARE_TILES, *RECTANGULAR_TILES):
            if hasattr(chosen, name):
                setattr(chosen, name, max(1, getattr(chosen, name) // 2))
    return LatentDecoder(chosen, options.resolution, autoencoding)


SQUARE_TILES = ("tile_latent_min_size", "tile_sample_min_size")
RECTANGULAR_TILES = tuple(
    f"tile_{what}_{side}" for what in ("latent_min", "sample_min", "sample_stride") for side in ("height", "width")
)
"""How autoencoders name the sides of their tiles, and the strides between them."""

TAILS = {
    "Decoder": ("conv_norm_out", "conv_act", "conv_out"),
    "QwenImageDecoder3d": ("norm_out", "nonlinearity", "conv_out"),
}
"""What follows the blocks in diffusers' decoders: that of AutoencoderKL and of others made of it, and Qwen-Image's."""

AT_A_TIME = 2**25
"""Numbers of a layer's input that are recomputed at once: more images than make up so many go through it in pieces."""


class Recomputed(nn.Sequential):
    """A frozen layer of which a graph keeps the inputs alone; it runs again in the backward pass.

    A batch goes through it in pieces of `AT_A_TIME` numbers or one image, so that what the layer makes on its way is
    held for one piece: the largest layers work on one image of 512 pixels at a time, the smallest on any batch.

    A row of one layer, so that what compiles the blocks in rows finds it.
    """

    def forward(self, images: Tensor, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        if not torch.is_grad_enabled():
            return self[0](images, *args, **kwargs)
        count = max(1, AT_A_TIME // images[0].numel())
        if count >= len(images):
            return self._recomputed(images, *args, **kwargs)
        return torch.cat([self._recomputed(piece, *args, **kwargs) for piece in images.split(count)])

    def _recomputed(self, images: Tensor, *args: Any, **kwargs: Any) -> Any:
        # A frozen decoder draws no random numbers, so that no state of theirs need be kept.
        return checkpoint(self[0], images, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def _recompute_layers(vae: nn.Module) -> bool:
    """Recompute the layers of an autoencoder's decoder one at a time; False where its decoder is none of `TAILS`.

    `enable_gradient_checkpointing` recomputes whole blocks. The last block of a decoder works on all pixels, and to
    hold its three residual layers at once is most of what a decode needs; the operations are no more this way. What
    follows the blocks, a norm, its nonlinearity and a convolution of all pixels, is a layer too.
    """
    decoder: Any = getattr(vae, "decoder", None)
    if type(decoder).__name__ not in TAILS:
        return False
    for block in (decoder.mid_block, *decoder.up_blocks):
        for part in ("resnets", "attentions", "upsamplers"):
            row: Any = getattr(block, part, None) or ()
            for number, layer in enumerate(row):
                if layer is not None:
                    row[number] = Recomputed(layer)
    norm, nonlinearity, convolution = TAILS[type(decoder).__name__]
    if type(getattr(decoder, norm)).__name__ != "SpatialNorm":  # which takes the latents as well
        last = nn.Sequential(*(getattr(decoder, name) for name in (norm, nonlinearity, convolution)))
        for name, layer in ((norm, nn.Identity()), (nonlinearity, nn.Identity()), (convolution, Recomputed(last))):
            setattr(decoder, name, layer)
    return True


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
