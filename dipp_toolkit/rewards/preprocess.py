"""What is done to an image before a model sees it. It is part of the score: filter, antialiasing, crop, rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError
from ..utils.deterministic import resized
from ..utils.device import sent
from ..utils.images import Images

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

WAYS = ("auto", "pillow", "tensor")


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop or pad to a square, and normalise.

    Two ways lead there, and published rewards use both. `pillow` rounds to 8 bits and resizes with Pillow, which rounds
    again, as the original packages do when they score pictures. `tensor` resizes what it is given, antialiased, and has
    a gradient, as their training code does. `auto` is `tensor` where a gradient is required and `pillow` elsewhere.
    The two differ by the rounding, about 0.002 a pixel, and where bicubic interpolation
    overshoots, which 8 bits cut off.

    Attributes:
        size: side of the square that the model sees.
        fit: `crop` resizes the shorter side and crops the centre; `pad` resizes the longer side and pads with black;
            `squash` resizes both; `square` pads to a square with the mean colour, as LLaVA does, and resizes that.
        mean: subtracted from each channel of images in [0, 1].
        std: divides it.
        interpolation: `bicubic` or `bilinear`.
        floor: whether an odd number of rows or columns is cropped with the smaller half first, as transformers'
            processors do; torchvision rounds to the even half.
        tensor_only: whether the original resizes a tensor even when it scores pictures; `pillow` then only rounds to
            8 bits.
    """

    size: int = 224
    fit: Literal["crop", "pad", "squash", "square"] = "crop"
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    interpolation: str = "bicubic"
    floor: bool = False
    tensor_only: bool = False

    def __call__(self, images: Images, way: str = "auto") -> Float[Tensor, "batch 3 {self.size} {self.size}"]:
        """What the model sees, float32.

        Args:
            images: in [0, 1], of any size.
            way: see above.

        Raises:
            RequestError: `pillow` was used where a gradient is required, or the way is unknown.
        """
        if way not in WAYS:
            raise RequestError(f"Images are prepared by pillow, tensor or auto, not by '{way}'.")
        graph = torch.is_grad_enabled() and images.requires_grad
        if way == "pillow" and graph:
            raise RequestError("preprocess=pillow rounds to 8 bits and has no gradient; train with preprocess=auto.")
        if way == "tensor" or graph:
            return self._normalised(self._shaped(images.float()))
        images = images.detach().float()
        if self.tensor_only:
            return self._normalised(self._shaped(_levels(images) / 255))
        # What a CPU rounds one at a time stays in its cache; a GPU takes the batch at once.
        parts = images.split(1) if images.device.type == "cpu" else [images]
        resized = torch.stack([self._by_pillow(image) for part in parts for image in _levels(part).byte().cpu()])
        return self._normalised(resized.to(images.device))

    def _by_pillow(self, pixels: Tensor) -> Tensor:
        from PIL import Image
        from torchvision.transforms import functional as F

        # Pillow weaves the channels together several times faster than to_pil_image reads them in strides.
        picture = Image.merge("RGB", [Image.fromarray(channel) for channel in pixels.numpy()])
        return F.to_tensor(self._shaped(picture))

    def _shaped(self, image: Any) -> Any:
        """Resized and cropped or padded; takes a batch or a Pillow image, and gives the same back."""
        from torchvision.transforms import functional as F

        if self.fit == "square":
            image = _squared(image, self.mean)
        if self.fit in ("squash", "square"):
            return self._resize(image, [self.size, self.size])
        if self.fit == "crop":
            width, height = F.get_image_size(image)
            long = int(self.size * max(width, height) / min(width, height))
            image = self._resize(image, [self.size, long] if height <= width else [long, self.size])
            if not self.floor:
                return F.center_crop(image, [self.size])
            width, height = F.get_image_size(image)
            return F.crop(image, (height - self.size) // 2, (width - self.size) // 2, self.size, self.size)
        width, height = F.get_image_size(image)
        scale = self.size / max(height, width)
        new = [max(1, round(height * scale)), max(1, round(width * scale))]
        if scale != 1:  # an image that fits already is not resampled
            image = self._resize(image, new)
        down, across = self.size - new[0], self.size - new[1]
        return F.pad(image, [across // 2, down // 2, across - across // 2, down - down // 2])

    def _resize(self, image: Any, size: list[int]) -> Any:
        """To this height and width; what has them is not resampled."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as F

        if isinstance(image, Tensor):
            same = list(image.shape[-2:]) == size
            return image if same else resized(image, (size[0], size[1]), self.interpolation)
        return F.resize(image, size, InterpolationMode(self.interpolation), antialias=True)

    def _normalised(self, images: Tensor) -> Tensor:
        return normalised(images, self.mean, self.std)


def normalised(
    images: Images, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> Float[Tensor, "batch 3 height width"]:
    """Images less the mean of each channel, over its deviation; CLIP's unless given. No GPU is waited for."""
    level, spread = (sent(torch.tensor(channels), images.device)[:, None, None] for channels in (mean, std))
    return (images - level) / spread


def _squared(image: Any, colour: tuple[float, ...]) -> Any:
    """Padded to a square with a colour, rounded down to 8 bits; the smaller half comes first."""
    from torchvision.transforms import functional as F

    width, height = F.get_image_size(image)
    down, across = max(width - height, 0), max(height - width, 0)
    around = [across // 2, down // 2, across - across // 2, down - down // 2]
    levels = tuple(int(channel * 255) for channel in colour)
    if not isinstance(image, Tensor):
        return F.pad(image, around, fill=levels)
    # torchvision fills a tensor with one number for all channels.
    shift = sent(torch.tensor(levels), image.device)[:, None, None] / 255
    return F.pad(image - shift, around) + shift


def _levels(images: Tensor) -> Tensor:
    """The nearest of 256 levels, 0 to 255, as float32; a copy."""
    return images.clamp(0, 1).mul_(255).round_()
