r"""A denoising network of somebody's own as a reference: `own_reference(network, schedule, ...)`.

Sampled deterministically, by DDIM's steps (Song et al. 2021, arXiv 2010.02502) between times that are evenly spaced:

$$x_{t'} = \alpha_{t'} \hat x_0 + \sigma_{t'} \hat\epsilon, \quad \hat\epsilon = (x_t - \alpha_t \hat x_0) / \sigma_t.$$
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..diffusion.condition import Condition
from ..diffusion.denoiser import Denoiser, Forward
from ..diffusion.predictions import Prediction
from ..diffusion.schedules import Schedule, expand_like, usable_times
from ..errors import RequestError
from ..protocols import Latents
from ..utils.images import Images
from .decoding import RisingClamp

Encode = Callable[[Sequence[str]], Condition]
Decode = Callable[[Tensor], Tensor]


def _plain_forward(network: nn.Module, x_t: Tensor, time: Tensor, condition: Condition) -> Tensor:
    made: Tensor = network(x_t, time, condition)
    return made


def _to_pixels(latents: Tensor) -> Tensor:
    pixels: Tensor = RisingClamp.apply(latents.float() / 2 + 0.5)
    return pixels


@dataclass
class OwnReference:
    """A reference around a denoising network of any signature; see `own_reference`.

    Attributes:
        denoiser: the network with its schedule, frozen.
        latent_shape: of one latent.
        encode_texts: makes a condition of texts.
        decode_latents: makes pixels of latents.
    """

    denoiser: Denoiser
    latent_shape: tuple[int, ...]
    encode_texts: Encode
    decode_latents: Decode = _to_pixels

    @property
    def network(self) -> nn.Module:
        """The denoiser's."""
        return self.denoiser.network

    @property
    def _device(self) -> torch.device:
        return next(iter([*self.network.parameters(), *self.network.buffers()]), torch.zeros(())).device

    def encode(self, prompts: Sequence[str]) -> Condition:
        return self.encode_texts(list(prompts)).to(self._device)

    def null(self, batch: int) -> Condition:
        return self.encode([""])[[0] * batch]

    def decode(self, latents: Latents) -> Images:
        return self.decode_latents(latents)

    @torch.no_grad()
    def sample(self, condition: Condition, noise: Latents, steps: int, guidance: float) -> Latents:
        """Latents by DDIM's steps from pure noise, guided by $x_0(\\varnothing) + a (x_0(c) - x_0(\\varnothing))$."""
        schedule, null = self.denoiser.schedule, self.null(len(condition))
        first, last = usable_times(schedule)
        x_t = noise
        for now, then in torch.linspace(last, first, steps + 1).unfold(0, 2, 1).tolist():
            t, later = (torch.full((len(noise),), time, device=noise.device) for time in (now, then))
            x0 = self.denoiser.predict_x0(x_t, t, condition)
            if guidance != 1:
                empty = self.denoiser.predict_x0(x_t, t, null)
                x0 = empty + guidance * (x0 - empty)
            alpha, sigma = expand_like(schedule.alpha(t), x_t), expand_like(schedule.sigma(t), x_t)
            rest = (x_t - alpha * x0) / sigma
            x_t = expand_like(schedule.alpha(later), x_t) * x0 + expand_like(schedule.sigma(later), x_t) * rest
        return x0

    def to(self, device: torch.device | str) -> OwnReference:
        self.network.to(device)
        for part in (self.encode_texts, self.decode_latents):
            if isinstance(part, nn.Module):
                part.to(device)
        return self


def own_reference(
    network: nn.Module,
    schedule: Schedule,
    latent_shape: Sequence[int],
    encode: Encode,
    *,
    prediction: Prediction = "epsilon",
    call: Forward | None = None,
    decode: Decode | None = None,
) -> OwnReference:
    """A denoising network of your own as a reference that `train` takes.

    Args:
        network: predicts from `x_t`, a time and a condition.
        schedule: what it was trained with, such as `VariancePreserving` or `FlowMatching` of
            `dipp_toolkit.diffusion.schedules`.
        latent_shape: of one latent, without the batch.
        encode: makes a `Condition` of a list of texts, one row a text, of the same trailing shapes in every call. The
            empty text is what guidance compares with.
        prediction: what the network's output is: `"epsilon"`, `"sample"`, `"v_prediction"` (diffusers' names), or
            `"velocity"` of flow matching.
        call: `call(network, x_t, time, condition)` gives the output, like `x_t`; `time`, `(batch,)`, is the schedule's
            own. `network(x_t, time, condition)` where it is left out.
        decode: makes pixels in [0, 1], `(batch, 3, height, width)`, of latents, differentiably. Where it is left out,
            latents are pixels in [-1, 1].

    Raises:
        RequestError: the network is no `nn.Module`.
    """
    if not isinstance(network, nn.Module):
        raise RequestError(f"The network is a {type(network).__name__}; expected a torch.nn.Module.")
    denoiser = Denoiser(network, schedule, prediction, call or _plain_forward)
    shape = tuple(int(size) for size in latent_shape)
    return OwnReference(denoiser, shape, encode, decode or _to_pixels)
