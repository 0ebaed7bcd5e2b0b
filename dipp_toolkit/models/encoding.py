"""From pictures to a pipeline's latents: the inverse of `decoding`."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError
from ..utils.images import Images
from .autoencoding import autoencoding_of
from .reference import DiffusersReference


@torch.no_grad()
def encode_images(
    reference: DiffusersReference, images: Images, batch: int = 8
) -> Float[Tensor, "batch channels latent_height latent_width"]:
    """Latents of images, as the reference's network knows them; see `Autoencoding.encode`.

    Args:
        reference: whose autoencoder and latent space.
        images: in [0, 1], of the reference's own size.
        batch: images a pass.

    Returns:
        Latents on the autoencoder's device, float32.

    Raises:
        RequestError: they are not of the shape that the reference's network takes.
    """
    vae: Any = reference.vae
    autoencoding = autoencoding_of(reference.family)
    latents = torch.cat([autoencoding.encode(vae, 2 * some - 1) for some in images.split(batch)])
    if tuple(latents.shape[1:]) != tuple(reference.latent_shape):
        raise RequestError(
            f"The autoencoder of {reference.folder} makes latents of the shape {tuple(latents.shape[1:])} of images of "
            f"{images.shape[-2]} x {images.shape[-1]} pixels, and its network takes {tuple(reference.latent_shape)}. "
            "See sample_size in the network's config.json and block_out_channels in the autoencoder's."
        )
    return latents
