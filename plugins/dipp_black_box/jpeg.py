"""How small an image becomes as a JPEG file."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.images import Images


class JpegSize:
    """Compressibility, DDPO's example of a reward that nobody can differentiate (Black et al. 2023, arXiv 2305.13301).

    The score is minus the size of the image's JPEG file in bits a pixel, at most 0; prompts do not matter.

    Args:
        quality: JPEG quality, 1 to 95; DDPO's is 95.
        sign: 1 to prefer small files, -1 to prefer large ones (DDPO's incompressibility).

    Raises:
        RequestError: an option is out of range.
    """

    name = "jpeg"
    differentiable = False
    range = "minus the bits a pixel, at most 0; with sign=-1 at least 0"
    licence = "no weights; the code is Apache-2.0"
    source = "Black et al. 2023, arXiv 2305.13301"
    blind_to = "the prompt, and what is shown: a plain picture is best"
    reads_prompts = False

    def __init__(self, quality: int = 95, sign: int = 1):
        if not 1 <= quality <= 95:
            raise RequestError(f"The reward 'jpeg' takes a quality from 1 to 95, not {quality}.")
        if sign not in (1, -1):
            raise RequestError(f"The reward 'jpeg' takes a sign of 1 or -1, not {sign}.")
        self.quality, self.sign = quality, sign

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores in float32, `(B,)`."""
        check_inputs(self.name, images, None)
        pixels = images.detach().float().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        bits = [8 * self._bytes(Image.fromarray(image)) / (image.shape[0] * image.shape[1]) for image in pixels]
        return -self.sign * torch.tensor(bits, dtype=torch.float32, device=images.device)

    def _bytes(self, image: Image.Image) -> int:
        file = io.BytesIO()
        image.save(file, format="JPEG", quality=self.quality)
        return file.tell()
