"""One decode for all rewards of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from ...models.decoding import RisingClamp
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
        return self._through(self.images, gradient)

    def before_clamp(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to the pixels that the decoder's clamp was given, of one with respect to the
        images: what the clamp lets pass depends on each reward's own direction."""
        with full_precision(self.x0.device):
            (pixels,) = torch.autograd.grad(
                self.images, clamped_edge(self.images), gradient.to(self.images.dtype), retain_graph=True
            )
        return pixels

    @step_part(DECODER)
    def pull_back_pixels(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to the latents of one with respect to the pixels before the clamp: linear in it, so
        that it may be that of many rewards."""
        self.waiting -= 1
        return self._through(clamped_edge(self.images), gradient)

    def _through(self, output: Any, gradient: Tensor) -> Tensor:
        with full_precision(self.x0.device):
            gradient = gradient.to(self.images.dtype)
            (latent_gradient,) = torch.autograd.grad(output, self.x0, gradient, retain_graph=self.waiting > 0)
        return latent_gradient


def clamped_edge(images: Tensor) -> GradientEdge:
    """Where the graph of images goes on before the clamp that they end with."""
    assert images.grad_fn is not None
    node, number = images.grad_fn.next_functions[0]
    assert node is not None
    return GradientEdge(node, number)


@dataclass
class SharedDecode:
    """Decodes a batch once, however many rewards look at it.

    The decoder's graph stands until the last of them has looked. At no time is there more than it and one reward's:
    what each reward would have held by itself.

    Attributes:
        decode: latents to images in [0, 1], differentiably.
        users: rewards that share it.
        learned: those among them that are learned on latents, and look at a part of the batch while that is trusted.
    """

    decode: Callable[[Tensor], Tensor]
    users: int = 1
    learned: int = 0
    _latents: Tensor | None = field(default=None, repr=False)
    _decoded: Decoded | None = field(default=None, repr=False)
    _absent: tuple[Tensor, int] | None = field(default=None, repr=False)
    _part: tuple[Tensor, list[int], Tensor] | None = field(default=None, repr=False)
    _clamped: bool | None = field(default=None, repr=False)

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
                is_part = self._part is not None and latents is self._part[2]
                users = self.learned if is_part else self.users - self._absences(latents)
                decoded = Decoded(x0, self.decode(x0), users)
            self._latents, self._decoded = latents, decoded
        if decoded.waiting == 1:  # the last user holds it alone
            self._latents = self._decoded = None
        return decoded

    @step_part(DECODER)
    def decoded_alone(self, latents: Tensor) -> Decoded:
        """Images of a batch or a part of it with their graph, which goes back once."""
        with torch.enable_grad():
            x0 = latents.detach().requires_grad_(True)
            return Decoded(x0, self.decode(x0), 1)

    def part(self, latents: Tensor, there: Tensor, rows: list[int]) -> Tensor:
        """Some of these latents: the same tensor for all rewards that look at the same ones, so that they share its
        decode.

        Args:
            latents: a batch.
            there: the rows, on its device.
            rows: the same on the host.
        """
        if self._part is None or self._part[0] is not latents or self._part[1] != rows:
            self._part = (latents, rows, latents[there])
        return self._part[2]

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

    def ends_with_clamp(self, latents: Tensor) -> bool:
        """Whether the images come out of a `RisingClamp` and nothing after it, as a `LatentDecoder`'s do: the way back
        before it is then linear. Found out once, on one sample."""
        if self._clamped is None:
            images = self.decoded_alone(latents[:1]).images
            # Of its class: up to torch 2.11 a node of a Python function has no name() once its tensor is gone.
            self._clamped = type(images.grad_fn).__name__ == f"{RisingClamp.__name__}Backward"
        return self._clamped

    def forgone(self) -> None:
        """One reward fewer will use it: it has no gradient."""
        self.users -= 1
