"""`generate`: pictures of prompts by a generator, or by a reference in many steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..experiments.bench.entries import BenchEntry
from ..models.drawing import as_pictures, check_texts
from ..models.sampling import generate_images, sample_reference
from ..models.text_encoders import prompt_encoder
from ..prompts.loading import load_prompts
from ..protocols import texts
from ..utils.device import choose_device
from ..utils.image_sizes import parse_size
from ..utils.python_words import python_words
from .parts import GivenParts

if TYPE_CHECKING:
    from PIL.Image import Image


def generate(
    generator: Any = None,
    prompts: Any = (),
    *,
    reference: Any = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int = 32,
    size: str | None = None,
    device: str = "auto",
) -> list[Image]:
    """Pictures of prompts, those that `dipp generate` makes with the same seed.

        >>> pictures = generate("emoji-onestep", ["fox on blue", "birthday cake on yellow"], seed=0)
        >>> [picture.size for picture in pictures]
        [(64, 64), (64, 64)]

    Args:
        generator: a name, a folder, a `diffusers` pipeline, a finished `RunResult`, or a generator object.
        prompts: one text, a list of texts, or what `load_prompts` returns.
        reference: encodes prompts and decodes latents of a generator that does not do so itself; without a generator it
            is sampled, in `steps` steps at `guidance`.
        seed: noise `i` belongs to prompt `i` of this seed.
        steps: of the reference alone.
        guidance: of the reference alone.
        batch_size: images a pass.
        size: of the pictures, width by height in pixels, as in `"768x512"`; by default the generator's own, the first
            of those that it was trained at.
        device: as in the settings.

    Returns:
        Pictures of `PIL`, one a prompt.

    Raises:
        RequestError: something given cannot be used.
    """
    with python_words():
        if generator is None and reference is None:
            raise RequestError(
                "Give a generator to draw with, or a reference to sample, as in generate('emoji-onestep')."
            )
        if generator is not None and (steps is not None or guidance is not None):
            raise RequestError("A generator has its steps and its guidance built in; leave steps and guidance out.")
        chosen, pixels = _texts(prompts), None if size is None else parse_size(size)
        objects, options = GivenParts(), {"steps": steps, "guidance": guidance}
        name = objects.generator(generator) if generator is not None else objects.reference(reference)
        given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
        if generator is None:
            given.setdefault("steps", 50)
        elif reference is not None:
            given["reference"] = objects.reference(reference)
        with objects.lent():
            entry = BenchEntry(name, name, given)
            entry.check()
            source = entry.source(choose_device(device))
        source = source.at(pixels)
        encoder = prompt_encoder(source.reference)
        if encoder is not None:
            encoder.check_lengths(chosen)
        condition = source.reference.encode(chosen)
        if source.generator is not None:
            return as_pictures(generate_images(source.generator, source.reference, condition, seed, batch_size))
        images = sample_reference(source.reference, condition, seed, source.steps, source.guidance, batch_size)
        return as_pictures(images)


def _texts(prompts: Any) -> list[str]:
    if isinstance(prompts, str):
        prompts = [prompts]
    if isinstance(prompts, Sequence) and not isinstance(prompts, Path) and all(isinstance(one, str) for one in prompts):
        check_texts(prompts)
        return list(prompts)
    return list(texts(load_prompts(prompts)))
