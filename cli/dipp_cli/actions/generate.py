"""What `dipp generate` does: load a generator or a reference, encode the prompts, and make the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.registry import get_registry
from dipp_toolkit.utils.image_sizes import parse_size, size_text

if TYPE_CHECKING:
    import torch

    from dipp_toolkit.prompts.conditions import OwnConditions
    from dipp_toolkit.protocols import Reference

GENERATOR = "emoji-onestep"
REFERENCE_STEPS, REFERENCE_GUIDANCE = 50, 1.0
GUIDANCE_EMBEDDING = "guidance_embedding"
"""The option of a generator that a reference takes too."""


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """The words of the command line; None for what was not given. `options` are how the generator is loaded."""

    generator: str | None = None
    reference: str | None = None
    prompt: Sequence[str] = ()
    prompts: str | None = None
    count: int | None = None
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    size: str | None = None
    device: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def one_step(self) -> bool:
        """Whether a generator makes the images, and not the reference itself."""
        return self.generator is not None or self.reference is None

    def check(self) -> None:
        """Refuse what cannot be done, before anything is loaded.

        Raises:
            RequestError: as a sentence.
        """
        if bool(self.prompt) == (self.prompts is not None):
            raise RequestError("Give the prompts: either --prompt TEXT, as often as you like, or --prompts SET|FILE.")
        if any(not text.strip() for text in self.prompt):
            raise RequestError("A --prompt is empty; expected a description of the image.")
        if self.count is not None and self.count < 1:
            raise RequestError(f"--count is {self.count}; expected at least 1.")
        if not 0 <= self.seed < 2**31:
            raise RequestError(f"--seed is {self.seed}; expected a number from 0 to {2**31 - 1}.")
        if self.steps is not None and self.steps < 1:
            raise RequestError(f"--steps is {self.steps}; expected at least 1.")
        if self.size is not None:
            parse_size(self.size)
        if self.one_step:
            self.check_steps(known_steps(self.generator or GENERATOR))
        if self.options.keys() - {GUIDANCE_EMBEDDING} and not self.one_step:
            raise RequestError("--set gives options of a generator; name one with --generator.")
        if self.one_step and self.guidance is not None:
            raise RequestError(
                "A one-step generator has its guidance built in. For a guided multi-step sample name --reference alone."
            )
        if self.guidance is not None and not 0 <= self.guidance < float("inf"):
            raise RequestError(f"--guidance is {self.guidance}; expected a finite number of at least 0.")

    def check_steps(self, own: int | None) -> None:
        """Refuse other steps than a generator's own, where they are known.

        Raises:
            RequestError: as a sentence.
        """
        if own is not None and self.steps not in (None, own):
            steps = "one step" if own == 1 else f"{own} steps"
            raise RequestError(
                f"{'A' if own == 1 else 'This'} generator makes its image in {steps}, not in {self.steps}. "
                "For a multi-step sample name --reference alone."
            )


def known_steps(generator: str) -> int | None:
    """How many steps a generator takes, where that can be told without loading it.

    Raises:
        RequestError: its scheduler's configuration is not valid JSON.
    """
    from dipp_toolkit.models.stock_schedulers import saved_steps

    entry = get_registry().entries["generator"].get(generator)
    if entry is not None:
        return int(entry.defaults.get("generator_steps", 1))
    return saved_steps(generator)


def reference_of(generator: str) -> str:
    """The reference that encodes prompts and decodes latents for a generator; see `reference_beside`.

    Raises:
        RequestError: no reference is known for it.
    """
    from dipp_toolkit.models.files.saved_generators import reference_beside

    reference = reference_beside(generator)
    if reference is None:
        raise RequestError(f"Name the reference of '{generator}' with --reference.")
    return reference


def make_images(request: GenerateRequest) -> tuple[list[str], Float[Tensor, "batch 3 height width"], dict[str, Any]]:
    """The whole of `image_batches` in one tensor."""
    import torch

    prompts, batches, settings = image_batches(request)
    return prompts, torch.cat(list(batches)), settings


def encoded_later(reference: Reference, prompts: Sequence[str], device: torch.device) -> OwnConditions:
    """Prompts that are encoded with the batch of images that they are for, so that few encoded ones are held.

    Raises:
        RequestError: one is too long.
    """
    from dipp_toolkit.models.text_encoders import prompt_encoder
    from dipp_toolkit.prompts.conditions import OwnConditions

    encoder = prompt_encoder(reference)
    if encoder is not None:
        encoder.check_lengths(prompts)
    return OwnConditions(prompts, reference, device)


def image_batches(
    request: GenerateRequest,
) -> tuple[list[str], Iterator[Float[Tensor, "batch 3 height width"]], dict[str, Any]]:
    """Load, encode and generate.

    Returns:
        The prompts, their images in [0, 1], each batch made when it is asked for, and the settings that make them.

    Raises:
        RequestError: a name is unknown or a file cannot be used.
    """
    from dipp_toolkit.models.few_steps import step_count
    from dipp_toolkit.models.loading import load_generator, load_reference
    from dipp_toolkit.models.published import check_guidance
    from dipp_toolkit.models.sampling import generated_batches, sampled_batches
    from dipp_toolkit.models.shared_components.pair import check_named, encode_for
    from dipp_toolkit.models.sized import decoder_beside, generator_at, reference_at
    from dipp_toolkit.prompts.loading import load_prompts
    from dipp_toolkit.protocols import texts
    from dipp_toolkit.utils.device import choose_device

    chosen = list(
        texts(load_prompts(request.prompts))[: request.count] if request.prompts is not None else request.prompt
    )
    device = choose_device(request.device)
    size, sized = None, dict[str, Any]()
    if request.size is not None:
        size = parse_size(request.size)
        sized = {"size": size_text(size)}
    if request.one_step:
        name = request.generator or GENERATOR
        reference_name = request.reference or reference_of(name)
        check_named(name, reference_name, "--reference {}")
        generator = generator_at(load_generator(name, **request.options), size)
        generator.network.to(device)
        reference = decoder_beside(load_reference(reference_name), generator).to(device)
        if tuple(generator.latent_shape) != tuple(reference.latent_shape):
            raise RequestError(
                f"The generator '{name}' makes latents of shape {tuple(generator.latent_shape)}, the reference "
                f"'{reference_name}' decodes {tuple(reference.latent_shape)}. Name its own reference with --reference."
            )
        encode_for(generator, reference)
        request.check_steps(steps := step_count(generator))
        images = generated_batches(generator, reference, encoded_later(reference, chosen, device), request.seed)
        settings = {
            "generator": name,
            **request.options,
            "reference": reference_name,
            "seed": request.seed,
            "steps": steps,
            **sized,
        }
        return chosen, images, settings
    name = request.reference or ""
    entry = get_registry().entries["reference"].get(name)
    recommended = entry.defaults if entry is not None else {}
    steps = request.steps or int(recommended.get("reference_steps", REFERENCE_STEPS))
    guidance = request.guidance
    if guidance is None:
        guidance = float(recommended.get("reference_guidance", recommended.get("guidance", REFERENCE_GUIDANCE)))
    check_guidance(name, guidance, "guidance")
    reference = reference_at(load_reference(name, **request.options), size).to(device)
    images = sampled_batches(reference, encoded_later(reference, chosen, device), request.seed, steps, guidance)
    settings = {"reference": name, **request.options, "seed": request.seed, "steps": steps, "guidance": guidance}
    settings |= sized
    return chosen, images, settings
