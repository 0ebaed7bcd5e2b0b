r"""HPSv3 by its own package, `hpsv3`, in an environment of its own: `--reward hpsv3@isolated`.

Without gradients this is the package's `reward` of 8-bit pictures. With gradients it is the same function of tensors,
which the package resizes by torchvision and cuts into patches by its own differentiable processor. The two differ by
what Pillow and torchvision make of a bicubic resize, and by the rounding to 8 bits; `preprocess` insists on one.

The model gives a mean and a deviation of each score, as its "uncertainty" loss reads them:
$r \sim \mathcal N(\mu, \sigma^2)$ with $\mu$ its first output and $\log\sigma$ its second.

Not run with the published weights, 7 billion parameters of bfloat16: `benchmarks/hpsv3_gradient` has a tiny model of
the same format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.rewards.isolated.environments import Environment
from dipp_toolkit.rewards.preprocess import WAYS
from dipp_toolkit.utils.images import Images, to_uint8
from dipp_toolkit.utils.paths import user_path
from dipp_toolkit.utils.tensor_files import check_weights

OUTPUTS = ("mu", "sigma")

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
        described=OriginalHPSv3,
    )


class OriginalHPSv3:
    """The package's inferencer as a reward.

    Args:
        inferencer: an `hpsv3.HPSv3RewardInferencer` that was made with `differentiable=True`.
        output: `mu`, the mean of a score, or `sigma`, its deviation, to see how sure the model is.
        preprocess: `auto`, `pillow` (pictures alone, without a gradient) or `tensor` (tensors alone).
    """

    range = "the mean of a normal law, without bounds; its deviation with output=sigma"
    licence = "MIT"
    source = "Ma et al. 2025, arXiv 2508.03789; weights: huggingface.co/MizzenAI/HPSv3, Qwen2-VL 7B"
    blind_to = "not known: the published weights have not been run here"
    gradient = "through the package's own differentiable processor; none with preprocess=pillow"

    def __init__(self, inferencer: Any, output: str = "mu", preprocess: str = "auto"):
        self.inferencer = inferencer
        self.output = output
        self.preprocess = preprocess
        self.differentiable = preprocess != "pillow"
        self._report: Mapping[str, Tensor] = {}
        model = inferencer.model.eval().requires_grad_(False)
        # The package keeps its head in float32 and leaves the cast of what reaches it to CUDA's autocast, so on CPUs a
        # bfloat16 model would fail there.
        model.rm_head.register_forward_pre_hook(_widen)

    def to(self, device: torch.device | str) -> OriginalHPSv3:
        """Move the model; returns itself."""
        self.inferencer.model.to(device)
        self.inferencer.device = str(device)
        return self

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """The mean of each score, or its deviation; with a gradient where the images require one."""
        tensors = self.differentiable and (self.preprocess == "tensor" or images.requires_grad)
        outputs = (self._of_tensors if tensors else self._of_pictures)(images, list(prompts))
        mean, deviation = outputs[:, 0].float(), outputs[:, 1].float().exp()
        self._report = {"mu": mean.detach(), "sigma": deviation.detach()}
        return mean if self.output == "mu" else deviation

    def report(self) -> Mapping[str, Float[Tensor, " batch"]]:
        """Mean and deviation of the images of the last call, whichever of them is the score."""
        return self._report

    def _of_pictures(self, images: Tensor, prompts: list[str]) -> Tensor:
        from PIL import Image

        pictures = [Image.fromarray(pixels) for pixels in to_uint8(images)]
        with torch.no_grad():
            return self._outputs(pictures, prompts)

    def _of_tensors(self, images: Tensor, prompts: list[str]) -> Tensor:
        # Its processor divides tensors by 255, as it does pictures.
        return self._outputs(list(images * 255), prompts)

    def _outputs(self, images: list[Any], prompts: list[str]) -> Tensor:
        # By name: later versions of the package have the two in the other order.
        outputs: Tensor = self.inferencer.reward(image_paths=images, prompts=prompts)
        return outputs


def _widen(head: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.float() for value in inputs)


def load(
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    output: str = "mu",
    preprocess: str = "auto",
) -> OriginalHPSv3:
    """Load the package's model; what is not named, the package downloads.

    Args:
        checkpoint: a local `HPSv3.safetensors`.
        config: a local configuration like the package's `HPSv3_7B.yaml`, which names Qwen2-VL's folder.
        output: `mu`, the score, or `sigma`, its deviation.
        preprocess: `auto`, `pillow` or `tensor`, as in `dipp_toolkit.rewards.preprocess`.

    Raises:
        RequestError: a file is missing, or an option has no such value.
    """
    for option, value, known in (("output", output, OUTPUTS), ("preprocess", preprocess, WAYS)):
        if value not in known:
            raise RequestError(
                f"The option {option} of the reward 'hpsv3' is '{value}'; expected {', '.join(known[:-1])} or "
                f"{known[-1]}."
            )
    from hpsv3 import HPSv3RewardInferencer

    files = {"checkpoint": checkpoint, "config": config}
    paths = {option: None if path is None else str(user_path(path)) for option, path in files.items()}
    for option, path in paths.items():
        if path is not None and not Path(path).is_file():
            raise RequestError(f"The option {option} of the reward 'hpsv3' names {path}, which is not a file.")
    if paths["checkpoint"] is not None:
        check_weights(Path(paths["checkpoint"]))
    inferencer = HPSv3RewardInferencer(
        config_path=paths["config"], checkpoint_path=paths["checkpoint"], device="cpu", differentiable=True
    )
    return OriginalHPSv3(inferencer, output, preprocess)
