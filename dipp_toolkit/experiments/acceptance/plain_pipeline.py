"""Images by plain diffusers: the stock pipeline class, its own loading and its own call."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import RequestError
from ...models.files.download_lists import INDEX, NOT_NEEDED
from ...models.files.folders import family_of, quiet_loading
from ...models.files.safety import check_index, stock_pipeline
from ...models.files.weight_files import weights_in
from ...models.stock_call import stock_call_of
from ...training.publish import load_arguments
from ...utils.images import Images
from ...utils.json_files import read_json
from ...utils.precision import matching_autocast
from ...utils.reproducibility import own_generators


def plain_pipeline(
    folder: Path, dtype: torch.dtype, device: torch.device, network: Path | None = None, scheduler: Any = None
) -> Any:
    """A folder's pipeline as diffusers loads it.

    Args:
        folder: of a class that is known, looked through already.
        dtype: of its weights.
        device: where it goes.
        network: folder of other weights for its network; its own where None.
        scheduler: in place of its own, where there is one.

    Raises:
        RequestError: diffusers has no such class.
    """
    index = read_json(folder / INDEX)
    check_index(index, folder)
    kind = stock_pipeline(index)
    if kind is None:
        raise RequestError(f"diffusers has no pipeline class {index.get('_class_name')}; install a version that has.")
    options: dict[str, Any] = {**load_arguments(folder), **{name: None for name in NOT_NEEDED if name in index}}
    name = family_of(folder).network_name
    variant = next((weights.variant for part in index if (weights := weights_in(folder / part)) is not None), None)
    with quiet_loading():
        if network is not None:
            import diffusers

            weights = weights_in(network)
            options[name] = getattr(diffusers, index[name][1]).from_pretrained(
                network, torch_dtype=dtype, variant=None if weights is None else weights.variant
            )
        pipeline = kind.from_pretrained(folder, torch_dtype=dtype, variant=variant, local_files_only=True, **options)
    if scheduler is not None:
        pipeline.scheduler = scheduler
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def plain_images(
    pipeline: Any,
    folder: Path,
    prompts: Sequence[str],
    noise: Float[Tensor, "batch channels latent_height latent_width"],
    call: Mapping[str, Any],
) -> Images:
    """The pipeline's own call, from given noise; on the CPU, in [0, 1].

    What its scheduler draws in between is a function of each image's noise, as in the toolkit: see `own_generators`.
    Where the class hands no generator on, that holds for one image alone.

    Args:
        pipeline: as `plain_pipeline` makes it.
        folder: that it was loaded from.
        prompts: what is drawn.
        noise: standard normal, float32, a row for each prompt.
        call: further arguments.
    """
    generators = own_generators(noise)
    family = family_of(folder)
    latents = stock_call_of(family).given_latents(noise)
    network = getattr(pipeline, family.network_name)
    arguments: dict[str, Any] = {"generator": generators, **call}
    taken = inspect.signature(type(pipeline).__call__).parameters
    with _seeded(generators[0]), torch.no_grad(), matching_autocast(network, pipeline.device):
        images: Tensor = pipeline(
            prompt=list(prompts),
            latents=latents.to(pipeline.device, next(network.parameters()).dtype),
            output_type="pt",
            **{name: value for name, value in arguments.items() if name in taken},
        ).images
    return images.float().cpu()


def plain_image(
    pipeline: Any,
    folder: Path,
    prompt: str,
    noise: Float[Tensor, "1 channels latent_height latent_width"],
    call: Mapping[str, Any],
) -> Images:
    """One of `plain_images`."""
    return plain_images(pipeline, folder, [prompt], noise, call)


@contextmanager
def _seeded(generator: torch.Generator) -> Iterator[None]:
    """Random numbers of pipelines that hand no generator on; outside as though nothing had been drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(generator.initial_seed())
        yield
