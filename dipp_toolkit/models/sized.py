"""Generators and references at the size of images that somebody asks for, or that the generator is made for."""

from __future__ import annotations

from ..errors import RequestError
from ..protocols import Generator, Reference
from ..utils.image_sizes import Size, size_text
from .sizes import in_latents


def reference_at(reference: Reference, size: Size | None) -> Reference:
    """The reference, to draw images of a size.

    Args:
        reference: a diffusers pipeline, where a size is named.
        size: height and width in pixels; None for its own.

    Raises:
        RequestError: it cannot.
    """
    from .reference import DiffusersReference

    if size is None:
        return reference
    if not isinstance(reference, DiffusersReference):
        raise RequestError(_one_size("reference", size, reference.latent_shape))
    return reference.sized(in_latents(reference.folder, reference.family, size))


def generator_at(generator: Generator, size: Size | None) -> Generator:
    """The generator, to draw images of a size; see `reference_at`.

    Raises:
        RequestError: it cannot.
    """
    from .generator import DiffusersGenerator

    if size is None:
        return generator
    if not isinstance(generator, DiffusersGenerator):
        raise RequestError(_one_size("generator", size, generator.latent_shape))
    return generator.sized([in_latents(generator.folder, generator.family, size)])


def decoder_beside(reference: Reference, generator: Generator) -> Reference:
    """The reference at the size of a generator's images, where the generator has one beside its configuration's."""
    from .generator import DiffusersGenerator
    from .reference import DiffusersReference

    if isinstance(reference, DiffusersReference) and isinstance(generator, DiffusersGenerator) and generator.sizes:
        return reference.sized(generator.sizes[0])
    return reference


def _one_size(kind: str, size: Size, latents: tuple[int, ...]) -> str:
    return (
        f"This {kind} is not a diffusers pipeline and draws images of one size, from latents of the shape "
        f"{tuple(latents)}. Leave the size {size_text(size)} out."
    )
