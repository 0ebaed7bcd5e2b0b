"""Pipeline families: what is particular to a diffusers pipeline class.

A plugin registers one with `dipp_register_pipelines`, under the class's name. `PipelineFamily` is what each has; every
other protocol here is optional, and a family fulfils it by having its attribute. Everything else about pipelines is the
toolkit's and the same for all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, nn

from ..diffusion.condition import Condition

if TYPE_CHECKING:
    from .autoencoding import Autoencoding
    from .comfyui.facts import ComfyModel
    from .original_layout.checkpoint import CheckpointLayout
    from .sizes import SizeRules
    from .stock_call import StockCall


@runtime_checkable
class PipelineFamily(Protocol):
    """What every family has.

    Attributes:
        network_name: the pipeline component that denoises, `"transformer"` or `"unet"`.
    """

    @property
    def network_name(self) -> str:
        """The component's name in `model_index.json`."""

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Encode prompts with the pipeline's own tokenizers and encoders, padded to one fixed length.

        Masked positions are best zero: the prompt cache does not keep the zeros in which a row ends.
        """

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        """The tokenizer that reads furthest into a prompt, and how many tokens it reads."""

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        """The network's raw output, like `x_t` (learned-variance channels dropped)."""


@runtime_checkable
class Since(Protocol):
    """A family whose pipeline class came with a later diffusers than the oldest that the toolkit runs with."""

    @property
    def since(self) -> str:
        """The version of diffusers, such as `"0.36"`."""


@runtime_checkable
class Configured(Protocol):
    """A family that depends on the configurations in a pipeline's folder."""

    def configured(self, folder: Path) -> PipelineFamily:
        """The family of this folder.

        Raises:
            RequestError: the stock pipeline cannot draw with these configurations.
        """


@runtime_checkable
class BlankConditions(Protocol):
    """A family that makes conditions without a text encoder, so that `dipp plan` can run its network dry."""

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        """A condition of the right shapes."""


@runtime_checkable
class IdleSettings(Protocol):
    """A family whose network's configuration has settings that its passes do not depend on.

    `dipp plan` takes networks that differ in nothing else for one.
    """

    @property
    def idle_settings(self) -> tuple[str, ...]:
        """Their names."""


@runtime_checkable
class FaultyCheckpointing(Protocol):
    """A family whose network's own gradient checkpointing computes something else than a plain pass."""

    @property
    def faulty_checkpointing(self) -> bool:
        """Whether it does. The toolkit recomputes the blocks in its place; see
        `dipp_toolkit.models.recomputed_blocks`."""


@runtime_checkable
class TinyTwin(Protocol):
    """A family with a tiny random pipeline of its class; see `dipp_toolkit.models.tiny_pipelines`."""

    def write_twin(self, folder: Path, **options: Any) -> object:
        """Save it; options are a `seed` and the family's own."""


@runtime_checkable
class EncodingSettings(Protocol):
    """A family whose embeddings depend on more than encoders, tokenizers, the pipeline's index and `max_tokens`."""

    def encoding_settings(self, folder: Path) -> Mapping[str, Any]:
        """What they depend on besides, by name; in the place of `max_tokens`."""


@runtime_checkable
class MaxTokens(Protocol):
    """A family that reads so many tokens of a prompt."""

    @property
    def max_tokens(self) -> int | None:
        """The number; part of what the prompt cache is named after."""


@runtime_checkable
class RewrittenTexts(Protocol):
    """A family that rewrites prompts before they are tokenized."""

    def texts_read(self, pipeline: Any, prompts: Sequence[str]) -> list[str]:
        """What the tokenizers are given in the prompts' place."""


@runtime_checkable
class OptionalEncoders(Protocol):
    """A family that lists the text encoders a pipeline may lack; without the list nothing is checked."""

    @property
    def optional_encoders(self) -> Collection[str]:
        """Names of components without which the stock pipeline draws too."""


@runtime_checkable
class SharedEncoding(Protocol):
    """A family whose networks may read prompts differently, as FLUX.1-schnell's and dev's do."""

    def encoding_for(self, other: Any) -> PipelineFamily:
        """The family that encodes prompts for its own network and another family's at once."""


@runtime_checkable
class SizedConditions(Protocol):
    """A family whose network is given an image's size."""

    def at_size(self, condition: Condition, size: tuple[int, int]) -> Condition:
        """The condition with the size, height and width in pixels."""


@runtime_checkable
class SizeLimits(Protocol):
    """A family whose network, or whose stock pipeline, takes other sizes than most; see `dipp_toolkit.models.sizes`."""

    def size_rules(self, network: Mapping[str, Any], pixels: int, usual: SizeRules) -> SizeRules:
        """The rules.

        Args:
            network: the network's configuration.
            pixels: of a latent's side.
            usual: what most networks of such a configuration want.
        """


@runtime_checkable
class GuidanceInput(Protocol):
    """A family of which some networks take the sampler's guidance as an input and need no second pass."""

    def takes_guidance(self, network_config: Mapping[str, Any]) -> bool:
        """Whether a network of this configuration does."""

    def guided(self, network: nn.Module, condition: Condition, guidance: float) -> Condition:
        """The condition with the guidance, for a network that takes one."""


@runtime_checkable
class DistilledFrom(Protocol):
    """A family of consistency models, which predict the end of a path and no score: generators, and no references."""

    @property
    def reference_class(self) -> str:
        """The pipeline class that they were distilled from; twins of both with one seed have the same parts."""


@runtime_checkable
class EmbeddedGuidance(Protocol):
    """A family of which some networks have guidance distilled into an input.

    It is a dataclass with this field: where a run sets `guidance_embedding`, or an exported folder records it, the
    toolkit makes a copy of the family with that value (`dipp_toolkit.models.guidance_embedding`).
    """

    @property
    def embedded_guidance(self) -> float | None:
        """The input's value, the stock pipeline's own where nothing is said; None for a network without the input."""


@runtime_checkable
class DecodingSettings(Protocol):
    """A family whose stock pipeline uses more of the autoencoder's configuration than its `scaling_factor`."""

    @property
    def decodes_with(self) -> Collection[str]:
        """The settings' names; see `dipp_toolkit.models.latent_space`."""


@runtime_checkable
class OwnAutoencoding(Protocol):
    """A family whose pipelines have another autoencoder than `AutoencoderKL`."""

    @property
    def autoencoding(self) -> Autoencoding:
        """How they call it; see `dipp_toolkit.models.autoencoding`."""


@runtime_checkable
class LatentSide(Protocol):
    """A family whose latents have another side than the network's `sample_size`."""

    def latent_side(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> int | Sequence[int]:
        """A side, or height and width, from the two configurations."""


@runtime_checkable
class CallArguments(Protocol):
    """A family whose stock pipeline needs more arguments to make the image that a generator of its network makes."""

    def call_arguments(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments, from the two configurations."""


@runtime_checkable
class OwnStockCall(Protocol):
    """A family whose stock pipeline drives its scheduler in another way than most."""

    @property
    def stock_call(self) -> StockCall:
        """How; see `dipp_toolkit.models.stock_call`."""


@runtime_checkable
class PublishedNames(Protocol):
    """A family whose authors published weights under names that diffusers does not convert."""

    def from_published_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """A network's tensors under diffusers' names; None where these are not the authors' names."""


@runtime_checkable
class OriginalLayout(Protocol):
    """A family whose authors publish checkpoints of one file, in names of their own."""

    def original_layout(self, folder: Path) -> CheckpointLayout:
        """Where such a file has the parts of a folder's pipeline."""

    def to_original_names(self, network: nn.Module) -> dict[str, Tensor]:
        """The network's tensors under their original names, without what stands before all of them.

        Raises:
            RequestError: one has no name there.
        """


@runtime_checkable
class InComfyUI(Protocol):
    """A family whose models ComfyUI loads by nodes of its own."""

    def comfyui(self, folder: Path) -> ComfyModel:
        """What ComfyUI makes of a folder's pipeline; see `dipp_toolkit.models.comfyui`."""


@runtime_checkable
class ImageStream(Protocol):
    """A family whose network's blocks return features of the prompt beside those of the image."""

    @property
    def image_stream(self) -> int | None:
        """The place of the image's features in what a block returns."""
