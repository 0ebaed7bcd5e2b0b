"""Pictures of prompts by a generator alone: what `generator("fox on blue", seed=0)` draws with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from ..errors import RequestError
from ..protocols import Generator, Reference
from ..utils.images import Images, to_uint8
from .components import load_component, load_scheduler
from .files.folders import quiet_loading
from .reference import DiffusersReference, decoder_dtype
from .sampling import generate_images
from .shared_components.pair import encode_for
from .text_encoders import PromptEncoder, prompt_encoder

if TYPE_CHECKING:
    from PIL.Image import Image

    from .generator import DiffusersGenerator


def parts_of(generator: DiffusersGenerator) -> DiffusersReference:
    """The text encoders and the decoder that a generator's pipeline folder holds, around no denoising network.

    Raises:
        RequestError: one of them cannot be loaded.
    """
    import torch

    folder, family = generator.parts or generator.folder, generator.family
    with quiet_loading():
        vae = load_component(folder, "vae", dtype=decoder_dtype(folder, family, torch.float32))
    encoder = PromptEncoder(folder, family, torch.float32)
    size = generator.sizes[0] if generator.sizes else None
    scheduler = load_scheduler(generator.folder)
    parts = DiffusersReference(folder, family, nn.Identity(), vae, scheduler, encoder, size=size)
    encode_for(generator, parts)
    return parts


def draw(
    generator: Generator, parts: Reference, prompts: str | Sequence[str], seed: int = 0, batch: int = 32
) -> Image | list[Image]:
    """Pictures of prompts, those that `dipp generate` makes of the same seed.

    Args:
        generator: makes latents.
        parts: encodes prompts and decodes latents; a reference of the same latents.
        prompts: one text, or several.
        seed: noise `i` belongs to prompt `i` of this seed.
        batch: images a pass.

    Returns:
        One picture of one text, and a list of a list.

    Raises:
        RequestError: a prompt is empty or too long, or there is none.
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    check_texts(texts)
    encoder = prompt_encoder(parts)
    if encoder is not None:
        encoder.check_lengths(texts)
    device = next(generator.network.parameters()).device
    pictures = as_pictures(generate_images(generator, parts.to(device), parts.encode(texts), seed, batch))
    return pictures[0] if isinstance(prompts, str) else pictures


def check_texts(texts: Sequence[object]) -> None:
    """Refuse prompts that describe nothing.

    Raises:
        RequestError: as a sentence.
    """
    if not texts:
        raise RequestError("There are no prompts; expected a text, or a list of texts.")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise RequestError(f"The prompt {text!r} is no description of an image; expected a text that is not empty.")


def as_pictures(images: Images) -> list[Image]:
    """Images in [0, 1] as pictures of 8 bits."""
    from PIL import Image

    return [Image.fromarray(pixels) for pixels in to_uint8(images)]
