"""A diffusers pipeline as the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..diffusion.condition import Condition
from ..diffusion.denoiser import Denoiser
from ..diffusion.predictions import prediction_from_config
from ..diffusion.schedules import schedule_from_config
from ..errors import RequestError, first_line
from ..protocols import null_beside
from ..utils.image_sizes import Size
from ..utils.images import Images
from ..utils.json_files import read_json
from .autoencoding import autoencoding_of
from .components import check_component, component_class, load_component, load_scheduler
from .decoding import DecodeOptions, LatentDecoder, reward_decoder
from .family import DecodingSettings, DistilledFrom, GuidanceInput, LatentSide, PipelineFamily, SizedConditions
from .files.folders import component_config, family_of, resolve_folder
from .guidance_embedding import with_guidance_embedding
from .latent_space import SHIFT
from .sizes import MOST_NUMBERS
from .stock_call import stock_call_of
from .text_encoders import PromptEncoder

RANDOM_DECODER = "ConsistencyDecoderVAE"


@dataclass
class DiffusersReference:
    """A diffusers pipeline as the reference: its network, decoder, scheduler and, when they are needed, text encoders.

    Attributes:
        folder: where it was loaded from.
        family: what is particular to its class.
        network: the denoising network, frozen.
        vae: the autoencoder, frozen.
        scheduler: the pipeline's own.
        encoder: its text encoders, loaded when the first prompt is encoded.
        shrink: by what the sides of its images are divided, for a generator of smaller ones; see `latent_shape_of`.
        size: height and width of its latents, where these are not what its configuration says; see `sized`.
    """

    folder: Path
    family: PipelineFamily
    network: nn.Module
    vae: Any
    scheduler: Any
    encoder: PromptEncoder
    shrink: int | Fraction = 1
    size: Size | None = None
    denoiser: Denoiser = field(init=False)
    latent_shape: tuple[int, ...] = field(init=False)
    _null: Condition | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for component in (self.network, self.vae):
            component.eval().requires_grad_(False)
        own = latent_shape_of(self.folder, self.family, self.shrink)
        self.latent_shape = own if self.size is None else (own[0], *self.size)
        config = stock_call_of(self.family).understood(self.scheduler)
        self.denoiser = Denoiser(
            self.network,
            schedule_from_config(config, self.latent_shape),
            prediction_from_config(config),
            self.family.forward,
        )

    @classmethod
    def load(
        cls,
        name: str,
        dtype: torch.dtype = torch.float32,
        *,
        shrink: int | Fraction = 1,
        guidance_embedding: float | None = None,
    ) -> DiffusersReference:
        """Load a local folder or hub id.

        Args:
            name: the folder or hub id.
            dtype: of the weights, the text encoders' included.
            shrink: by what the sides of its images are divided.
            guidance_embedding: the guidance that a network with it distilled in is told; where None, what the folder
                records, or the stock pipeline's own.

        Raises:
            RequestError: it is missing, no plugin knows its class, or its network takes no guidance and one is given.
        """
        folder = resolve_folder(name)
        family = with_guidance_embedding(check_pipeline_folder(folder), guidance_embedding, folder)
        return cls(
            folder,
            family,
            load_component(folder, family.network_name, dtype=dtype),
            load_component(folder, "vae", dtype=decoder_dtype(folder, family, dtype)),
            load_scheduler(folder),
            PromptEncoder(folder, family, dtype),
            shrink,
        )

    def sized(self, size: Size | None) -> DiffusersReference:
        """The same reference of latents of another size, which shares all its networks.

        Its times are shifted as those of this size, where they depend on one.

        Args:
            size: height and width in latents, as `sizes.in_latents` checks them; None for the configuration's own.
        """
        return self if size == self.size else replace(self, size=size)

    def use_parts(self, folder: Path) -> None:
        """Encode prompts and decode latents with another pipeline's text encoders, tokenizers and autoencoder.

        Raises:
            RequestError: they cannot be loaded.
        """
        family = family_of(folder)
        dtype = decoder_dtype(folder, family, self.encoder.dtype)
        self.vae = load_component(folder, "vae", dtype=dtype).eval().requires_grad_(False)
        self.encoder = replace(self.encoder, folder=folder, family=family, _pipeline=None)
        self._null = None

    @property
    def network_folder(self) -> Path:
        """Where the network's weights lie; a generator of the same weights can share them."""
        return self.folder / self.family.network_name

    def encode(self, prompts: Sequence[str]) -> Condition:
        return self.at_size(self.encoder.encode(prompts))

    def at_size(self, condition: Condition, size: Size | None = None) -> Condition:
        """Encoded prompts with the image size that the network takes as an input.

        The prompt cache does not hold it.

        Args:
            condition: the prompts.
            size: height and width in latents, which the condition has from then on; that of this reference where None.
        """
        family = self.family
        if isinstance(family, SizedConditions):
            condition = family.at_size(condition, self._pixels(size or self.latent_shape[1:]))
        return condition if size is None else replace(condition, size=size)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._pixels(self.latent_shape[1:])

    def _pixels(self, latents: Sequence[int]) -> tuple[int, int]:
        pixels = autoencoding_of(self.family).pixels_per_latent(self.vae.config)
        height, width = (side * pixels for side in latents)
        return height, width

    def keep_null(self, condition: Condition) -> None:
        """Use this condition of the empty prompt, `(1, ...)`, instead of encoding it."""
        self._null = condition

    def null(self, batch: int) -> Condition:
        if self._null is None:
            self._null = self.encode([""])
        return self._null[[0] * batch]

    def decode(self, latents: Float[Tensor, "batch channels latent_height latent_width"]) -> Images:
        return LatentDecoder(self.vae, autoencoding=autoencoding_of(self.family))(latents)

    def reward_decoder(self, options: DecodeOptions) -> LatentDecoder:
        """The decoder that rewards see through; see `dipp_toolkit.models.decoding`."""
        return reward_decoder(self.vae, options, autoencoding_of(self.family))

    @torch.no_grad()
    def sample(
        self, condition: Condition, noise: Float[Tensor, "batch channels height width"], steps: int, guidance: float
    ) -> Float[Tensor, "batch channels height width"]:
        """Latents by the stock pipeline's own steps; see `StockCall.sample`.

        An image's noise is its own: schedulers that draw noise in their steps are given a random generator for each
        image, seeded with its row of `noise`. So an image depends neither on those beside it nor on the device.
        """
        two_passes, call = self.takes_two_passes(guidance), stock_call_of(self.family)
        if two_passes:
            both = Condition.cat([condition, null_beside(self, condition).to(noise.device)])
        elif self.guidance_is_input:
            condition = cast(GuidanceInput, self.family).guided(self.network, condition, guidance)

        def output_of(x_t: Tensor, timestep: Tensor) -> Tensor:
            if not two_passes:
                return self.denoiser.raw_output(x_t, timestep.expand(len(x_t)), condition)
            doubled = torch.cat([x_t, x_t])
            given, empty = self.denoiser.raw_output(doubled, timestep.expand(len(doubled)), both).chunk(2)
            return call.guided(given, empty, guidance)

        return call.sample(self.scheduler, noise, steps, output_of, tuple(noise.shape[1:]))

    @property
    def guidance_is_input(self) -> bool:
        """Whether the network takes the sampler's guidance as an input, as a latent consistency model's does."""
        family = self.family
        return isinstance(family, GuidanceInput) and family.takes_guidance(cast(Any, self.network).config)

    def takes_two_passes(self, guidance: float) -> bool:
        """Whether a step at this guidance takes a pass with the empty prompt too: in stock pipelines, only above 1."""
        return guidance > 1 and not self.guidance_is_input and stock_call_of(self.family).second_pass

    def to(self, device: torch.device | str) -> DiffusersReference:
        self.network.to(device)
        self.vae.to(device)
        if torch.device(device).type == "cpu":  # there, convolutions work in this order, and would reorder every layer
            for weight in self.vae.parameters():
                if weight.ndim == 4:  # those of an autoencoder of videos have a fifth axis, and no such order
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        self.encoder.to(device)
        self._null = self._null.to(device) if self._null is not None else None
        return self


def decoder_dtype(folder: Path, family: PipelineFamily, dtype: torch.dtype) -> torch.dtype:
    """The dtype that the autoencoder's weights are kept in: float32 in float16's place where it decodes in float32."""
    space = autoencoding_of(family).space(component_config(folder, "vae"))
    return torch.float32 if space.upcast and dtype is torch.float16 else dtype


def check_pipeline_folder(folder: Path, weights: bool = True) -> PipelineFamily:
    """Refuse a pipeline folder that cannot be a reference, without reading its weights.

    Args:
        folder: the pipeline's.
        weights: whether they are to be there; without them it is the folder of a blueprint.

    Raises:
        RequestError: no plugin knows its class, a file is missing, or a configuration cannot be used.
    """
    family = family_of(folder)
    if weights:
        for name in (family.network_name, "vae"):
            check_component(folder, name)
    check_decoder(folder, family)
    scheduler, call, latent_shape = load_scheduler(folder), stock_call_of(family), latent_shape_of(folder, family)
    config = call.understood(scheduler)
    schedule_from_config(config, latent_shape)
    prediction_from_config(config)
    call.check(scheduler, latent_shape)
    return family


def check_decoder(folder: Path, family: PipelineFamily) -> None:
    """Refuse an autoencoder that cannot decode a pipeline's latents, or whose images are not a function of them.

    Raises:
        RequestError: as above.
    """
    kind = component_class(folder, "vae").__name__
    if kind == RANDOM_DECODER:
        raise RequestError(
            f"The autoencoder of {folder} is a {RANDOM_DECODER}, which draws noise of its own for every image, so that "
            "a seed does not determine the image. Put the AutoencoderKL that the network was trained with into "
            f"{folder / 'vae'}."
        )
    config = component_config(folder, "vae")
    autoencoding_of(family).space(config)
    needs_shift = isinstance(family, DecodingSettings) and SHIFT in family.decodes_with
    if needs_shift and config.get(SHIFT) is None and kind == "AutoencoderKL":
        raise RequestError(
            f"{folder / 'vae' / 'config.json'} has no {SHIFT}, without which the stock pipeline cannot decode; "
            "expected a number, 0 for no shift."
        )


def check_score(folder: Path, family: PipelineFamily) -> None:
    """Refuse a reference whose network predicts no score that a training could follow.

    Raises:
        RequestError: it is a consistency model's.
    """
    if isinstance(family, DistilledFrom):
        raise RequestError(
            f"{folder} cannot be the reference of a training: its network is a consistency model's, which predicts the "
            f"end of a path and no score. Name the {family.reference_class} that it was distilled from as the "
            "reference; this one can be the generator."
        )
    config = component_config(folder, family.network_name)
    if isinstance(family, GuidanceInput) and family.takes_guidance(config):
        raise RequestError(
            f"{folder} cannot be the reference of a training: its network is a latent consistency model's, which "
            f"predicts the end of a path and no score (time_cond_proj_dim in {family.network_name}/config.json). Name "
            "the model it was distilled from as the reference; this one can be the generator."
        )


def check_steps(folder: Path, family: PipelineFamily, steps: int) -> None:
    """Refuse a number of sampling steps that a reference's scheduler cannot take, without its network.

    Raises:
        RequestError: the stock pipeline would fail, or its samples would be no numbers.
    """
    stock_call_of(family).check(load_scheduler(folder), latent_shape_of(folder, family), steps)


def latent_shape_of(folder: Path, family: PipelineFamily, shrink: int | Fraction = 1) -> tuple[int, ...]:
    """The shape of one latent, from the network's and the autoencoder's configurations; no weights are read.

    Args:
        folder: the pipeline's.
        family: what is particular to its class.
        shrink: by what its sides are divided; a UNet takes any size, and Stable Diffusion XL takes it as an input.

    Raises:
        RequestError: they do not give it.
    """
    network = read_json(folder / family.network_name / "config.json")
    vae = read_json(folder / "vae" / "config.json")
    try:
        own = isinstance(family, LatentSide)
        size = cast(LatentSide, family).latent_side(network, vae) if own else network["sample_size"]
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        shape = (autoencoding_of(family).latent_channels(vae), int(height) // shrink, int(width) // shrink)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise RequestError(
            f"The configurations in {folder} do not give the shape of a latent: {first_line(error)}."
        ) from error
    if min(shape) < 1 or math.prod(shape) > MOST_NUMBERS:
        raise RequestError(
            f"The configurations in {folder} give latents of the shape {shape}; expected positive numbers, and "
            f"{MOST_NUMBERS:,} in a latent at most: see sample_size in {family.network_name}/config.json and "
            "latent_channels in vae/config.json."
        )
    return shape
