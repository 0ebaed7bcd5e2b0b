"""HPSv2 by its own package, `hpsv2`, in an environment of its own: `--reward hps@isolated`.

Model, tokenizer and preprocessing are the package's; what its `img_score.score` does around them is done here, because
that function reads the checkpoint again at every call. Without gradients pictures are rounded to 8 bits and scored
under autocast, as there; with gradients the same transforms are applied to the tensors, in float32.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.rewards.isolated.environments import Environment
from dipp_toolkit.utils.images import Images, to_uint8
from dipp_toolkit.utils.packages import how_to_install
from dipp_toolkit.utils.paths import user_path
from dipp_toolkit.utils.tensor_files import check_weights

MODEL = "ViT-H-14"
HUB = "xswu/HPSv2"
MERGES = "bpe_simple_vocab_16e6.txt.gz"
REQUIREMENTS = ("args", "clint", "ftfy", "hpsv2==1.2.0", "protobuf<4", "regex", "sentencepiece", "wcwidth")
"""What the package imports, checked with Python 3.11; torch, torchvision, transformers and timm are shared."""


def environment() -> Environment:
    """The environment `hpsv2`."""
    return Environment(
        name="hpsv2",
        requirements=REQUIREMENTS,
        reward="hps",
        entry="dipp_hps.original:load",
        imports="hpsv2.img_score",
        prepare="dipp_hps.original:add_merges",
    )


def add_merges(packages: Path) -> None:
    """Put the tokenizer's table, which the package forgot, where it looks for it.

    Args:
        packages: the environment's site-packages.

    Raises:
        RunError: the table is nowhere.
    """
    spec = find_spec("open_clip")
    source = Path(spec.origin).parent / MERGES if spec is not None and spec.origin is not None else None
    if source is None or not source.is_file():
        raise RunError(
            f"The package hpsv2 lacks its file {MERGES}, which comes with open_clip. Run: "
            + how_to_install(["open_clip"], extra="rewards")
        )
    shutil.copyfile(source, packages / "hpsv2" / "src" / "open_clip" / MERGES)


class OriginalHPS:
    """The package's model as a reward.

    Args:
        model: the package's ViT-H/14.
        preprocess: its transforms of a picture.
        tokenizer: its tokenizer.
    """

    differentiable = True

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any):
        from torchvision.transforms import Compose

        self.model = model.eval().requires_grad_(False)
        self.preprocess = preprocess
        self.preprocess_tensor: Callable[[Tensor], Tensor] = Compose(preprocess.transforms[2:])  # after ToTensor
        self.tokenizer = tokenizer
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> OriginalHPS:
        """Move the model; returns itself."""
        self.device = torch.device(device)
        self.model.to(self.device)
        return self

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Cosines of images and prompts; with a gradient where the images require one."""
        return self._of_tensors(images, prompts) if images.requires_grad else self._of_pictures(images, prompts)

    def _of_pictures(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        from PIL import Image

        scores = []
        with torch.no_grad(), torch.autocast("cuda", enabled=self.device.type == "cuda"):
            for pixels, prompt in zip(to_uint8(images), prompts, strict=True):
                scores.append(self._cosines(self.preprocess(Image.fromarray(pixels))[None], [prompt]))
        return torch.cat(scores).float()

    def _of_tensors(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._cosines(torch.stack([self.preprocess_tensor(image) for image in images]), prompts)

    def _cosines(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        output = self.model(pixels.to(self.device), self.tokenizer(list(prompts)).to(self.device))
        return torch.diagonal(output["image_features"] @ output["text_features"].T)


def load(version: str = "v2.1", checkpoint: str | Path | None = None) -> OriginalHPS:
    """Load the package's model.

    Args:
        version: `v2.1` or `v2.0`: which of the published checkpoints is downloaded.
        checkpoint: a local one in its place.

    Raises:
        RequestError: there is no such version or file.
    """
    from hpsv2.src.open_clip import create_model_and_transforms, get_tokenizer
    from hpsv2.utils import hps_version_map

    version = f"v{str(version).removeprefix('v')}"
    if version not in hps_version_map:
        raise RequestError(f"The reward 'hps' comes in the versions {' and '.join(hps_version_map)}, not in {version}.")
    if checkpoint is None:
        from huggingface_hub import hf_hub_download

        checkpoint = hf_hub_download(HUB, hps_version_map[version])
    path = user_path(checkpoint)
    if not path.is_file():
        raise RequestError(f"The option checkpoint of the reward 'hps' names {path}, which is not a file.")
    check_weights(path)
    # Not the package's initialize_model: that fetches 4 GB of LAION's weights first, only to overwrite them.
    model, _, preprocess = create_model_and_transforms(MODEL, None, light_augmentation=True, output_dict=True)
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"])
    return OriginalHPS(model, preprocess, get_tokenizer(MODEL))
