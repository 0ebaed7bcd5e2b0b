"""One decode for all rewards of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...utils.precision import full_precision
from ...utils.step_parts import DECODER, step_part


@dataclass
class Decoded:
    """Images of a batch with the graph that leads back to its latents.

    Attributes:
        x0: the latents, a leaf.
        images: in [0, 1].
        waiting: rewards that have yet to use them.
    """

    x0: Tensor
    images: Tensor
    waiting: int

    @step_part(DECODER)
    def pull_back(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to the latents of one with respect to the images; the last frees the graph.

        Args:
            gradient: of something that is to rise, like the images: a decoder may look at where it points.
        """
        self.waiting -= 1
        with full_precision(self.x0.device):
            gradient = gradient.to(self.images.dtype)
            (latent_gradient,) = torch.autograd.grad(self.images, self.x0, gradient, retain_graph=self.waiting > 0)
        return latent_gradient


@dataclass
class SharedDecode:
    """Decodes a batch once, however many rewards look at it.

    The decoder's graph stands until the last of them has looked. At no time is there more than it and one reward's:
    what each reward would have held by itself.

    Attributes:
        decode: latents to images in [0, 1], differentiably.
        users: rewards that share it.
    """

    decode: Callable[[Tensor], Tensor]
    users: int = 1
    _latents: Tensor | None = field(default=None, repr=False)
    _decoded: Decoded | None = field(default=None, repr=False)
    _absent: tuple[Tensor, int] | None = field(default=None, repr=False)

    @step_part(DECODER)
    def __call__(self, latents: Tensor) -> Tensor:
        """Images, without sharing anything."""
        return self.decode(latents)

    @step_part(DECODER)
    def decoded(self, latents: Tensor) -> Decoded:
        """Images of these latents with their graph, made at the first call for them."""
        decoded = self._decoded
        if decoded is None or self._latents is not latents:
            with torch.enable_grad():
                x0 = latents.detach().requires_grad_(True)
                decoded = Decoded(x0, self.decode(x0), self.users - self._absences(latents))
            self._latents, self._decoded = latents, decoded
        if decoded.waiting == 1:  # the last user holds it alone
            self._latents = self._decoded = None
        return decoded

    @step_part(DECODER)
    def decoded_alone(self, latents: Tensor) -> Decoded:
        """Images of a part of a batch with their graph, for one reward."""
        with torch.enable_grad():
            x0 = latents.detach().requires_grad_(True)
            return Decoded(x0, self.decode(x0), 1)

    def spared(self, latents: Tensor) -> None:
        """One reward fewer will look at these latents: it has its gradient from elsewhere."""
        if self._decoded is None or self._latents is not latents:
            self._absent = (latents, self._absences(latents) + 1)
            return
        self._decoded.waiting -= 1
        if not self._decoded.waiting:
            self._latents = self._decoded = None

    def _absences(self, latents: Tensor) -> int:
        return self._absent[1] if self._absent is not None and self._absent[0] is latents else 0

    def forgone(self) -> None:
        """One reward fewer will use it: it has no gradient."""
        self.users -= 1
