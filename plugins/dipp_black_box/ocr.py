"""Whether an image shows the words that its prompt asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.images import Images

QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|(?<!\w)'([^']+)'(?!\w)")
"""Text in quotes; an apostrophe inside a word is not a quote."""


def wanted_text(prompt: str) -> str:
    """What the prompt puts in quotes, joined by spaces; the whole prompt where it quotes nothing."""
    quoted = ["".join(groups) for groups in QUOTED.findall(prompt)]
    return " ".join(quoted) if quoted else prompt


def agreement(shown: str, expected: str) -> float:
    """Share of letters and digits that two texts have in common and in order, in [0, 1]; case does not matter.

    Twice the number of matching characters by the number of all (Ratcliff and Obershelp's measure), as in `difflib`.
    """
    left, right = ("".join(letter for letter in text.casefold() if letter.isalnum()) for text in (shown, expected))
    return SequenceMatcher(None, left, right, autojunk=False).ratio() if right else 0.0


class TextShown:
    """Reads the image with RapidOCR and compares with the text the prompt quotes; scores in [0, 1].

    The models come with the package `rapidocr` (Apache-2.0) and run in ONNX Runtime on the CPU.
    """

    name = "ocr"
    differentiable = False
    range = "a share of letters, in [0, 1]"
    licence = "Apache-2.0, of the package rapidocr with its models"
    source = "github.com/RapidAI/RapidOCR, held against the prompt by difflib's ratio"
    blind_to = "all but letters and digits in their order: upper case, marks, style, and what else the picture shows"

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        self._engine: Any = RapidOCR(params={"Global.log_level": "error"})

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores in float32, `(B,)`; 0 where nothing is read."""
        check_inputs(self.name, images, prompts)
        pixels = images.detach().float().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        scores = [
            agreement(self.read(image), wanted_text(prompt)) for image, prompt in zip(pixels, prompts, strict=True)
        ]
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    def read(self, pixels: Any) -> str:
        """The text in an image, `(height, width, 3)` in 8-bit RGB, its lines joined by spaces."""
        return " ".join(self._engine(pixels[..., ::-1]).txts or ())
