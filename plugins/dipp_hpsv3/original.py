"""HPSv3 by its own package, `hpsv3`, in an environment of its own: `--reward hpsv3@isolated`.

Scores alone, of 8-bit pictures, so a run trains with it as a black box. Not run with the published weights, 7 billion
parameters of bfloat16: the package imports in this environment and gets as far as asking the hub for them.
"""

from __future__ import annotations

from collections.abc import Sequence
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

REQUIREMENTS = (
    "absl-py",
    "accelerate==1.0.1",
    "aiohappyeyeballs",
    "aiohttp",
    "aiosignal",
    "antlr4-python3-runtime==4.9.3",
    "attrs",
    "datasets==2.21.0",
    "dill==0.3.8",
    "docstring-parser",
    "eval-type-backport",
    "fire",
    "frozenlist",
    "fsspec==2024.6.1",
    "grpcio",
    "hpsv3==1.0.0",
    "huggingface_hub==0.26.5",
    "markdown",
    "markupsafe",
    "multidict",
    "multiprocess==0.70.16",
    "numpy<2",
    "omegaconf",
    "pandas<2.3",
    "peft==0.12.0",
    "propcache",
    "protobuf",
    "pyarrow<18",
    "pytz",
    "pyyaml",
    "requests",
    "setuptools<70",
    "shtab",
    "six",
    "tensorboard",
    "tensorboard-data-server",
    "termcolor",
    "tokenizers==0.20.3",
    "transformers==4.45.2",
    "trl==0.9.6",
    "typeguard",
    "tyro",
    "tzdata",
    "werkzeug",
    "xxhash",
    "yarl",
)
"""Everything the package imports, in versions that import beside a current torch; checked with Python 3.11."""


def environment() -> Environment:
    """The environment `hpsv3`."""
    return Environment(
        name="hpsv3",
        requirements=REQUIREMENTS,
        reward="hpsv3",
        entry="dipp_hpsv3.original:load",
        imports="hpsv3",
    )


class OriginalHPSv3:
    """The package's inferencer as a reward.

    Args:
        inferencer: an `hpsv3.HPSv3RewardInferencer`.
    """

    differentiable = False

    def __init__(self, inferencer: Any):
        self.inferencer = inferencer

    def to(self, device: torch.device | str) -> OriginalHPSv3:
        """Move the model; returns itself."""
        self.inferencer.model.to(device)
        self.inferencer.device = str(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """The mean of each score, of which the model gives a deviation as well."""
        from PIL import Image

        pictures = [Image.fromarray(pixels) for pixels in to_uint8(images)]
        scores: Tensor = self.inferencer.reward(pictures, list(prompts))[:, 0]
        return scores.float()


def load(checkpoint: str | Path | None = None, config: str | Path | None = None) -> OriginalHPSv3:
    """Load the package's model; what is not named, the package downloads.

    Args:
        checkpoint: a local `HPSv3.safetensors`.
        config: a local configuration like the package's `HPSv3_7B.yaml`, which names Qwen2-VL's folder.

    Raises:
        RequestError: a file is missing.
    """
    from hpsv3 import HPSv3RewardInferencer

    files = {"checkpoint": checkpoint, "config": config}
    paths = {option: None if path is None else str(user_path(path)) for option, path in files.items()}
    for option, path in paths.items():
        if path is not None and not Path(path).is_file():
            raise RequestError(f"The option {option} of the reward 'hpsv3' names {path}, which is not a file.")
    if paths["checkpoint"] is not None:
        check_weights(Path(paths["checkpoint"]))
    return OriginalHPSv3(HPSv3RewardInferencer(paths["config"], paths["checkpoint"], device="cpu"))
