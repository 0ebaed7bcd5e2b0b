r"""From pictures to a pipeline's latents: the inverse of what its decoder is given, `latent_space.LatentSpace`."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError
from ..utils.images import Images
from .latent_space import LatentSpace
from .reference import DiffusersReference, decodes_with


@torch.no_grad()
def encode_images(
    reference: DiffusersReference, images: Images, batch: int = 8
) -> Float[Tensor, "batch channels latent_height latent_width"]:
    r"""Latents $z = (y - \mu)\, s / \sigma$ of images, $y$ being the autoencoder's own.

    Of an autoencoder that gives a normal law for each image, its mean is taken: latents are encoded once, and what its
    small variance would add is far below the noise that a denoiser learns from.

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
    weight = next(vae.parameters())
    space = LatentSpace.from_config(vae.config, decodes_with(reference.family))
    parts = []
    for some in images.split(batch):
        encoded = vae.encode((2 * some - 1).to(weight.device, weight.dtype))
        own = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
        parts.append(space.encoded(own.float()))
    latents = torch.cat(parts)
    if tuple(latents.shape[1:]) != tuple(reference.latent_shape):
        raise RequestError(
            f"The autoencoder of {reference.folder} makes latents of the shape {tuple(latents.shape[1:])} of images of "
            f"{images.shape[-2]} x {images.shape[-1]} pixels, and its network takes {tuple(reference.latent_shape)}. "
            "See sample_size in the network's config.json and block_out_channels in the autoencoder's."
        )
    return latents
