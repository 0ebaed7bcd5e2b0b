r"""The colours of objects as GenEval names them: CLIP's zero-shot choice for each crop.

A crop shows the object's box; what is outside its mask is grey, `#999`. The class vector of a colour is the mean of the
unit text features of three sentences, made unit again, and the colour is that of the largest cosine. The published
pipeline calls clip_benchmark for this, under autocast on a GPU; here it is float32 everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dipp_toolkit.rewards.open_clip_models import load_clip, tokenizer_of

from .metadata import COLOURS
from .verdict import Found

SENTENCES = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")
GREY = 0x99 / 255

Image = Float[Tensor, "3 height width"]


@runtime_checkable
class ColourNamer(Protocol):
    """What names colours; a class or function of the user's own will do."""

    def __call__(self, image: Image, name: str, found: Sequence[Found]) -> Sequence[str]:
        """The colour of each object of class `name` in an image in [0, 1]: one of `metadata.COLOURS`."""


def crop_of(image: Image, found: Found) -> Float[Tensor, "3 rows columns"]:
    """What an object's box shows, grey outside its mask.

    Args:
        image: in [0, 1].
        found: the object; its box is rounded to pixels, and one that would be empty keeps one.
    """
    height, width = image.shape[1:]
    if found.mask is not None:
        image = torch.where(torch.from_numpy(found.mask).to(image.device), image, GREY)
    left, top, right, bottom = map(round, found.box)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return image[:, top : max(min(bottom, height), top + 1), left : max(min(right, width), left + 1)]


class ClipColours:
    """Colours by a CLIP of open_clip.

    Args:
        model: open_clip's name of the model.
        pretrained: its weights: a tag, or a local file.

    Raises:
        RequestError: there is no such model, or its weights are unavailable.
    """

    memories: ClassVar = ("_vectors",)

    def __init__(self, model: str, pretrained: str):
        network, self.preprocess = load_clip("geneval", model, pretrained)
        self.network: Any = network.float().eval().requires_grad_(False)
        self.tokenizer = tokenizer_of(model)
        self._vectors: dict[str, Tensor] = {}

    def to(self, device: torch.device | str) -> ClipColours:
        """Move the network; returns itself."""
        self.network.to(device)
        self._vectors.clear()
        return self

    @torch.no_grad()
    def __call__(self, image: Image, name: str, found: Sequence[Found]) -> list[str]:
        """See `ColourNamer`."""
        if not found:
            return []
        device = next(self.network.parameters()).device
        pixels = torch.cat([self.preprocess(crop_of(image, one)[None], "pillow") for one in found]).to(device)
        features = self.network.encode_image(pixels, normalize=True)
        return [COLOURS[index] for index in (features @ self._vectors_of(name, device).T).argmax(1).tolist()]

    def _vectors_of(self, name: str, device: torch.device) -> Float[Tensor, "colours features"]:
        if name not in self._vectors:
            texts = [sentence.format(colour=colour, name=name) for colour in COLOURS for sentence in SENTENCES]
            features = self.network.encode_text(self.tokenizer(texts).to(device), normalize=True)
            self._vectors[name] = F.normalize(features.reshape(len(COLOURS), len(SENTENCES), -1).mean(1), dim=-1)
        return self._vectors[name]
