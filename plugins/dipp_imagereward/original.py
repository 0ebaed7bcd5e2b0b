"""ImageReward by its own package, `image-reward`, in an environment of its own: `--reward imagereward@isolated`.

Without gradients this is the package's `score`: 8-bit pictures through Pillow. With gradients it is what the package's
ReFL trains with: the same resize, crop and normalisation of the tensor, then `score_gard`. The two differ by what
Pillow and torchvision make of a bicubic resize, and by the rounding to 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.rewards.isolated.environments import Environment
from dipp_toolkit.utils.images import Images, to_uint8
from dipp_toolkit.utils.paths import user_path
from dipp_toolkit.utils.tensor_files import check_weights

SIDE, TOKENS = 224, 35

REQUIREMENTS = (
    "accelerate==1.0.1",
    "aiohappyeyeballs",
    "aiohttp",
    "aiosignal",
    "attrs",
    "clip-anytorch",
    "datasets==2.21.0",
    "diffusers==0.30.3",
    "dill==0.3.8",
    "fairscale==0.4.13",
    "frozenlist",
    "fsspec==2024.6.1",
    "ftfy",
    "huggingface_hub==0.26.5",
    "image-reward==1.5",
    "multidict",
    "multiprocess==0.70.16",
    "numpy<2",
    "pandas<2.3",
    "peft==0.12.0",
    "propcache",
    "pyarrow<18",
    "pytz",
    "requests",
    "setuptools<70",
    "timm==0.6.13",
    "tokenizers==0.20.3",
    "transformers==4.45.2",
    "tzdata",
    "xxhash",
    "yarl",
)
"""Everything the package imports, in versions that work beside a current torch; checked with Python 3.11."""


def environment() -> Environment:
    """The environment `image-reward`."""
    return Environment(
        name="image-reward",
        requirements=REQUIREMENTS,
        reward="imagereward",
        entry="dipp_imagereward.original:load",
        imports="ImageReward",
    )


class OriginalImageReward:
    """The package's model as a reward.

    Args:
        model: an `ImageReward.ImageReward.ImageReward`.
    """

    differentiable = True

    def __init__(self, model: Any):
        from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize

        self.model = model.eval().requires_grad_(False)
        normalize = model.preprocess.transforms[-1]
        self.preprocess: Callable[[Tensor], Tensor] = Compose(
            [
                Resize(SIDE, interpolation=InterpolationMode.BICUBIC, antialias=True),
                CenterCrop(SIDE),
                Normalize(normalize.mean, normalize.std),
            ]
        )

    def to(self, device: torch.device | str) -> OriginalImageReward:
        """Move the model; returns itself."""
        self.model.to(device)
        self.model.device = torch.device(device)
        return self

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Standardised scores; with a gradient where the images require one."""
        return self._of_tensors(images, prompts) if images.requires_grad else self._of_pictures(images, prompts)

    def _of_pictures(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        from PIL import Image

        pictures = [Image.fromarray(pixels) for pixels in to_uint8(images)]
        with torch.no_grad():
            return torch.tensor(
                [self.model.score(prompt, picture) for prompt, picture in zip(prompts, pictures, strict=True)]
            )

    def _of_tensors(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        text = self.model.blip.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(images.device)
        scores: Tensor = self.model.score_gard(text.input_ids, text.attention_mask, self.preprocess(images))
        return scores.squeeze(1)


def load(
    checkpoint: str | Path | None = None, med_config: str | Path | None = None, vocabulary: str | Path | None = None
) -> OriginalImageReward:
    """Load the package's model; what is not named, the package downloads.

    Args:
        checkpoint: a local `ImageReward.pt`.
        med_config: a local `med_config.json`.
        vocabulary: a local `vocab.txt` of BERT, uncased, or a folder with it.

    Raises:
        RequestError: a file is missing.
    """
    import ImageReward
    from ImageReward.models.BLIP import blip

    if vocabulary is not None:
        blip.BertTokenizer = _LocalTokenizer(blip.BertTokenizer, _file("vocabulary", vocabulary, "vocab.txt"))
    name = "ImageReward-v1.0" if checkpoint is None else str(_file("checkpoint", checkpoint, "ImageReward.pt"))
    if checkpoint is not None:
        check_weights(Path(name))  # the package leaves it to torch's default whether code may run
    config = None if med_config is None else str(_file("med_config", med_config, "med_config.json"))
    return OriginalImageReward(ImageReward.load(name, device="cpu", med_config=config))


class _LocalTokenizer:
    """Stands for the tokenizer's class where the package asks the hub for BERT's vocabulary; gives a local one."""

    def __init__(self, kind: Any, path: Path):
        self.kind, self.path = kind, path

    def from_pretrained(self, name: str) -> Any:
        return self.kind(str(self.path))


def _file(option: str, value: str | Path, name: str) -> Path:
    path = user_path(value)
    path = path / name if path.is_dir() else path
    if not path.is_file():
        raise RequestError(f"The option {option} of the reward 'imagereward' names {path}, which is not a file.")
    return path
