"""Images from prompts: one step or a few with a generator, many with a reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.condition import Condition
from ..protocols import Generator, Reference
from ..utils.images import Images

BLOCK = 16
"""Normal numbers that torch's CPU generator makes together."""


@runtime_checkable
class ConditionRows(Protocol):
    """Encoded prompts by row: a `Condition`, or what encodes rows when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Sequence[int]) -> Condition: ...


def fixed_noise(
    count: int, shape: tuple[int, ...], seed: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "count ..."]:
    """Standard normal noise that depends on the seed alone, not on the device."""
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(seed)).to(device)


def noise_batches(count: int, shape: tuple[int, ...], seed: int, batch: int) -> Iterator[Float[Tensor, "rows ..."]]:
    """The rows of `fixed_noise`, a batch at a time, drawn when asked for where that gives the same numbers."""
    if math.prod(shape) % BLOCK:  # a block would reach into the next batch
        yield from fixed_noise(count, shape, seed).split(batch)
        return
    random = torch.Generator().manual_seed(seed)
    for start in range(0, count, batch):
        yield torch.randn((min(batch, count - start), *shape), generator=random)


@torch.no_grad()
def generate_images(
    generator: Generator, reference: Reference, condition: Condition, seed: int, batch: int = 32
) -> Images:
    """One image for each prompt, in the generator's one network pass or its few.

    Args:
        generator: makes latents; what it draws between its steps is a function of each image's own noise.
        reference: its decoder makes pixels.
        condition: the encoded prompts, `reference.encode(prompts)`.
        seed: noise `i` belongs to prompt `i` of this seed.
        batch: images a pass.

    Returns:
        Images in [0, 1], on the CPU.
    """
    return torch.cat(list(generated_batches(generator, reference, condition, seed, batch)))


def generated_batches(
    generator: Generator, reference: Reference, condition: ConditionRows, seed: int, batch: int = 32
) -> Iterator[Images]:
    """The images of `generate_images`, a batch at a time, each made when it is asked for."""
    device = next(generator.network.parameters()).device
    noises = noise_batches(len(condition), generator.latent_shape, seed, batch)
    for rows, noise in zip(torch.arange(len(condition)).split(batch), noises, strict=True):
        with torch.no_grad():
            chosen = condition[rows.tolist()].to(device)
            latents = generator.generate(noise.to(device), chosen)
            images = reference.decode(latents).cpu()
        yield images


@torch.no_grad()
def sample_reference(
    reference: Reference, condition: Condition, seed: int, steps: int = 50, guidance: float = 1.0, batch: int = 32
) -> Images:
    """One image for each prompt by the reference's own multi-step sampler, from the same noise a generator is given.

    Args:
        reference: the diffusion model.
        condition: the encoded prompts.
        seed: noise `i` belongs to prompt `i` of this seed.
        steps: sampling steps.
        guidance: classifier-free guidance, 1 for none.
        batch: images a pass.

    Returns:
        Images in [0, 1], on the CPU.
    """
    return torch.cat(list(sampled_batches(reference, condition, seed, steps, guidance, batch)))


def sampled_batches(
    reference: Reference, condition: ConditionRows, seed: int, steps: int = 50, guidance: float = 1.0, batch: int = 32
) -> Iterator[Images]:
    """The images of `sample_reference`, a batch at a time, each made when it is asked for."""
    device = next(reference.denoiser.network.parameters()).device
    noises = noise_batches(len(condition), reference.latent_shape, seed, batch)
    for rows, noise in zip(torch.arange(len(condition)).split(batch), noises, strict=True):
        with torch.no_grad():
            chosen = condition[rows.tolist()].to(device)
            latents = reference.sample(chosen, noise.to(device), steps, guidance)
            images = reference.decode(latents).cpu()
        yield images
