r"""From a pipeline's latents to what its autoencoder decodes, as the stock pipeline of its class does it, and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError
from ..utils.device import sent

Latents = Float[Tensor, "batch channels latent_height latent_width"]

SHIFT, STATISTICS, UPCAST = "shift_factor", "latents_mean", "force_upcast"
"""Settings of an autoencoder that only some pipeline classes of diffusers decode with; `latents_std` goes with the
second."""

DECODES_WITH = (SHIFT,)
"""Where a family says nothing."""


@dataclass(frozen=True)
class LatentSpace:
    r"""$y = z \sigma / s + \mu$: latents $z$ of the denoising network, and $y$ that the autoencoder decodes.

    Attributes:
        factor: $s$, `scaling_factor`.
        std: $\sigma$, a number a channel; 1 for none.
        mean: $\mu$, a number a channel, or the shift of all of them.
        upcast: whether float16 is too narrow for the decoder, whose passes are float32 then.
    """

    factor: float = 1.0
    std: tuple[float, ...] = (1.0,)
    mean: tuple[float, ...] = (0.0,)
    upcast: bool = False

    @classmethod
    def from_config(cls, vae: Mapping[str, Any], decodes_with: Collection[str] = DECODES_WITH) -> LatentSpace:
        """The latent space that an autoencoder's configuration describes.

        Args:
            vae: its configuration; absent entries have the values of its class where it is a loaded autoencoder's.
            decodes_with: which of `SHIFT`, `STATISTICS` and `UPCAST` the stock pipeline looks at.

        Raises:
            RequestError: mean and deviation are not one number a channel.
        """
        factor = float(vae.get("scaling_factor") or 1.0)
        upcast = UPCAST in decodes_with and bool(vae.get(UPCAST, True))
        mean, std = vae.get(STATISTICS), vae.get("latents_std")
        if STATISTICS in decodes_with and mean is not None and std is not None:
            channels = int(vae.get("latent_channels", 4))
            try:
                space = cls(factor, tuple(map(float, std)), tuple(map(float, mean)), upcast)
            except (TypeError, ValueError):
                space = cls()
            if not len(space.mean) == len(space.std) == channels:
                raise RequestError(
                    f"The autoencoder's latents_mean and latents_std are {mean} and {std}; expected {channels} numbers "
                    "each, one for every channel of a latent."
                )
            return space
        shift = float(vae.get(SHIFT) or 0.0) if SHIFT in decodes_with else 0.0
        return cls(factor, mean=(shift,), upcast=upcast)

    @property
    def normalised(self) -> bool:
        """Whether every channel has a mean and a deviation of its own."""
        return len(self.mean) > 1

    def decodable(self, latents: Latents) -> Latents:
        """What the autoencoder decodes, in the dtype of the latents."""
        if not self.normalised:
            return latents / self.factor + self.mean[0]
        std, mean = self._by_channel(latents)
        return latents * std / self.factor + mean

    def encoded(self, own: Latents) -> Latents:
        """The network's latents of what the autoencoder encodes; the inverse of `decodable`."""
        if not self.normalised:
            return (own - self.mean[0]) * self.factor
        std, mean = self._by_channel(own)
        return (own - mean) * self.factor / std

    def _by_channel(self, like: Latents) -> Float[Tensor, "2 1 channels 1 1"]:
        numbers = sent(torch.tensor([self.std, self.mean]), like.device).to(like.dtype)
        return numbers.view(2, 1, -1, 1, 1)
