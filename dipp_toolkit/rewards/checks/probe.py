"""A reward under examination: pictures and prompts to show it, and calls that it cannot spoil for the next check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from ...errors import DippError, RunError
from ...protocols import Reward, moved
from ...utils.exception_text import raised
from ...utils.images import Images
from ..scores import as_scores

BATCH = 4
PROMPTS = (
    "a red apple on a white table",
    "a portrait of an old sailor, oil painting",
    "two dogs in the snow",
    "a city at night in the rain",
    "an astronaut on a horse",
)


class RewardRaisedError(RunError):
    """The reward raised something."""


class RewardRefusedError(RunError):
    """The reward raised a sentence of its own: it knows that it does not take this."""


@dataclass
class Probe:
    """A reward and what has been learned of it so far.

    Attributes:
        name: as typed, for messages.
        reward: what is checked.
        device: where images are.
        size: pixels a side of an ordinary picture.
        seed: of everything random.
        seconds: how long speed is measured, each way.
        has_gradient: whether the scores have a gradient with respect to the images; None before that was tried.
    """

    name: str
    reward: Reward
    device: torch.device
    size: int = 64
    seed: int = 0
    seconds: float = 0.5
    has_gradient: bool | None = None

    def move(self, device: torch.device) -> None:
        """Images are on `device` from here on, and the reward too where it can be moved.

        Raises:
            RewardRaisedError: its `to` raised.
        """
        self.device = device
        try:
            moved(self.reward, device)
        except Exception as error:  # a reward's own code may raise anything
            raise RewardRaisedError(f"Its .to('{device}') raised {raised(error)}.") from error

    def random(self, key: int) -> torch.Generator:
        """A seeded source; other keys give other numbers."""
        return torch.Generator().manual_seed(1_000_003 * self.seed + key)

    def pictures(self, count: int = BATCH, height: int = 0, width: int = 0, key: int = 0) -> Images:
        """Pictures with soft shapes, some texture and a little noise, in [0.15, 0.85], all different.

        The margin keeps them off the edges of [0, 1], where a reward may well clamp.
        """
        shape = (height or self.size, width or self.size)
        random = self.random(key)
        image = smooth_noise(count, shape, random, cells=4) + 0.5 * smooth_noise(count, shape, random, cells=12)
        image = image + 0.1 * torch.randn(count, 3, *shape, generator=random)
        return (0.5 + 0.15 * image).clamp(0.15, 0.85).to(self.device)

    def prompts(self, count: int = BATCH) -> list[str]:
        """Ordinary prompts."""
        return [PROMPTS[index % len(PROMPTS)] for index in range(count)]

    def score(self, images: Images, prompts: Sequence[str]) -> Float64[Tensor, " batch"]:
        """Scores without gradients, float64 on the CPU; the reward gets copies.

        Raises:
            RewardRaisedError: it raised.
            RewardRefusedError: it raised a sentence of its own.
            RunError: it did not return one finite score for each image.
        """
        with torch.no_grad():
            return self.call(images.clone(), list(prompts)).detach().cpu().double()

    def gradient(self, images: Images, prompts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Scores, and the gradient of their sum with respect to the images, None where there is no path to them.

        What the reward is given is no leaf, as in training, where images come from a decoder.

        Raises:
            RunError: as in `score`.
        """
        with torch.enable_grad():
            leaf = images.detach().clone().requires_grad_(True)
            scores = self.call(leaf.clone(), list(prompts))
            if not scores.requires_grad:
                return scores.detach(), None
            (gradient,) = torch.autograd.grad(scores.sum(), leaf, allow_unused=True)
        return scores.detach(), gradient

    def call(self, images: Images, prompts: list[str]) -> Float[Tensor, " batch"]:
        """The reward itself, its answer checked; whatever it does to the state of torch is undone.

        Raises:
            RunError: as in `score`.
        """
        with undisturbed():
            try:
                answer = self.reward(images, prompts)
            except DippError as error:
                raise RewardRefusedError(str(error)) from error
            except Exception as error:  # whatever a reward raises is what the check has found
                raise RewardRaisedError(f"It raised {raised(error)}.") from error
        return as_scores(self.name, answer, len(prompts), self.device)


def smooth_noise(
    count: int, shape: tuple[int, int], random: torch.Generator, cells: int
) -> Float[Tensor, "count 3 height width"]:
    """Coloured noise of about unit variance without detail finer than a `cells`-th of the picture."""
    coarse = torch.randn(count, 3, cells, cells, generator=random)
    return F.interpolate(coarse, size=shape, mode="bicubic", align_corners=False)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put back the grad mode and the default dtype, whatever happened to them inside."""
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
