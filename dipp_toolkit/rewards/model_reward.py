"""What rewards that are one frozen network share: checked inputs, preprocessing, precision, devices, kept prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import RequestError
from ..utils.images import Images
from ..utils.precision import DTYPES
from .preprocess import WAYS, Preprocess
from .scores import check_inputs
from .text_features import FEW, TextFeatures


class ModelReward:
    """A frozen network as a reward. A subclass says what its network sees and reads, and how that becomes a score.

    Args:
        network: in evaluation mode from here on, without gradients of its own.
        preprocess: what images become.
        way: `auto`, `pillow` or `tensor`; see `Preprocess`.
        precision: of the weights and activations, `fp32` or `bf16`; images are prepared and scores given in float32.
        batch: images that the network sees at a time, 0 for all.

    Attributes:
        differentiable: True; gradients flow from the scores to the images.
        licence: of the weights.
        source: the paper, and where the weights are published.
        range: what scores there are.
        blind_to: what it cannot see, and what it is fooled by.
        gradient: through what a gradient reaches the images.

    Raises:
        RequestError: an option is out of range.
    """

    name = "reward"
    differentiable = True
    licence = ""
    source = ""
    range = ""
    blind_to = ""
    gradient = "through the resize and the image's network"
    reads_prompts = True

    def __init__(
        self,
        network: nn.Module,
        preprocess: Preprocess,
        *,
        way: str = "auto",
        precision: str = "fp32",
        batch: int = 0,
    ):
        if precision not in ("fp32", "bf16"):
            raise RequestError(f"The reward '{self.name}' runs in fp32 or bf16, not in {precision}.")
        if way not in WAYS:
            raise RequestError(f"The reward '{self.name}' prepares images by auto, pillow or tensor, not by '{way}'.")
        if batch < 0:
            raise RequestError(f"The batch of the reward '{self.name}' is {batch}; expected 0 or more.")
        self.dtype = DTYPES[precision]
        self.network: Any = network.to(self.dtype).eval().requires_grad_(False)
        self.preprocess, self.way, self.batch = preprocess, way, batch
        self.texts = TextFeatures(self.read, together=FEW)

    def read(self, prompts: Sequence[str]) -> Tensor:
        """What the network makes of prompts, `(batch, ...)`; kept for the next time."""
        raise NotImplementedError

    def score(self, pixels: Float[Tensor, "batch 3 size size"], texts: Tensor | None) -> Float[Tensor, " batch"]:
        """Scores from what the network sees and has read."""
        raise NotImplementedError

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores of images in [0, 1] of any size for their prompts, float32, higher is better.

        Raises:
            RequestError: the images are not a `(B, 3, H, W)` batch, or there is not one prompt for each.
        """
        check_inputs(self.name, images, prompts)
        self.to(images.device)
        size = self.batch or len(images)
        with torch.autocast(images.device.type, enabled=False):
            texts = self.texts(list(prompts)) if self.reads_prompts else None
            parts = []
            for start in range(0, len(images), size):
                pixels = self.preprocess(images[start : start + size], self.way).to(self.dtype)
                parts.append(self.score(pixels, None if texts is None else texts[start : start + size]).float())
        return torch.cat(parts)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = next(self.network.parameters()).device
        return device

    def to(self, device: torch.device | str) -> ModelReward:
        """Move the network; returns itself."""
        target = torch.device(device)
        if self.device.type != target.type or (target.index is not None and self.device.index != target.index):
            self.network.to(target)
            self.texts.forget()
        return self
