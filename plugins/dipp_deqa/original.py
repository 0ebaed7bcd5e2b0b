r"""DeQA-Score by its own package in an environment of its own: `--reward deqa@isolated`.

How good a picture is as a picture, whatever its prompt. The model reads *How would you rate the quality of this
image?* and the beginning of an answer, *The quality of the image is*; with $p_l$ the softmax over the five words that
it may go on with, the score is
$5 p_\text{excellent} + 4 p_\text{good} + 3 p_\text{fair} + 2 p_\text{poor} + p_\text{bad}$.

The package's own `Scorer` runs without gradients and lets transformers choose an attention that the package has not.
Here its classes are loaded with the one they have, and the picture reaches them with a gradient; its preprocessing, a
square padded with CLIP's mean colour and resized, is the toolkit's own.

The package is on no index: it is fetched from GitHub, at the commit below. Not run with the published weights, 7
billion parameters of float16: held against central differences on a tiny random model of the same format.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError, first_line
from dipp_toolkit.rewards.isolated.environments import Environment
from dipp_toolkit.rewards.preprocess import WAYS, Preprocess
from dipp_toolkit.utils.images import Images
from dipp_toolkit.utils.paths import is_local_name, user_path

HUB = "zhiyuanyou/DeQA-Score-Mix3"
COMMIT = "8e4abc826ed84a15f7c0bc3ac119e8b9245c7b2f"
LEVELS = {"excellent": 5.0, "good": 4.0, "fair": 3.0, "poor": 2.0, "bad": 1.0}
QUESTION = "USER: How would you rate the quality of this image?\n<|image|>\nASSISTANT: The quality of the image is"
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

REQUIREMENTS = (
    "accelerate==0.27.2",
    "asttokens",
    "certifi",
    "charset-normalizer",
    "colorama",
    f"deqa-score @ https://github.com/zhiyuanyou/DeQA-Score/archive/{COMMIT}.zip",
    "einops==0.6.1",
    "executing",
    "fsspec==2024.6.1",
    "huggingface_hub==0.20.3",
    "icecream",
    "idna",
    "numpy<2",
    "protobuf",
    "psutil",
    "pygments",
    "pyyaml",
    "requests",
    "sentencepiece",
    "tokenizers==0.15.2",
    "transformers==4.36.1",
    "urllib3",
)
"""Everything the package's model imports, in versions that work beside a current torch; checked with Python 3.11."""


def environment() -> Environment:
    """The environment `deqa`."""
    return Environment(
        name="deqa",
        requirements=REQUIREMENTS,
        reward="deqa",
        entry="dipp_deqa.original:load",
        imports="src.model",
        described=OriginalDeQA,
    )


class OriginalDeQA:
    """The package's model as a reward, of which prompts are no part.

    Args:
        model: an `MPLUGOwl2LlamaForCausalLM`.
        question: token ids of `QUESTION`, the image's place among them, `(1, tokens)`.
        levels: token ids of the five words, best first.
        prepare: what the model sees of an image.
        preprocess: `auto`, `pillow` (pictures alone, without a gradient) or `tensor` (tensors alone).
    """

    range = "the mean of five levels, in [1, 5]"
    licence = "MIT"
    source = "You et al. 2025, arXiv 2501.11561; weights: huggingface.co/zhiyuanyou/DeQA-Score-Mix3, mPLUG-Owl2 7B"
    blind_to = (
        "the prompt, so that a good picture of anything will do; what is finer than 448 pixels on the longer side show"
    )
    gradient = "through the resize and the package's model; none with preprocess=pillow"
    reads_prompts = False

    def __init__(self, model: Any, question: Tensor, levels: list[int], prepare: Preprocess, preprocess: str = "auto"):
        self.model = model.eval().requires_grad_(False)
        self.question, self.levels, self.prepare, self.preprocess = question, levels, prepare, preprocess
        self.differentiable = preprocess != "pillow"

    def to(self, device: torch.device | str) -> OriginalDeQA:
        """Move the model; returns itself."""
        self.model.to(device)
        self.question = self.question.to(device)
        return self

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores from 1 to 5; with a gradient where the images require one."""
        images = images if self.differentiable else images.detach()
        pixels = self.prepare(images, self.preprocess).to(self.model.dtype)
        logits = self.model(input_ids=self.question.repeat(len(pixels), 1), images=pixels)["logits"]
        shares = logits[:, -1, self.levels].float().softmax(dim=-1)
        return shares @ torch.tensor(list(LEVELS.values()), device=shares.device)


def load(checkpoint: str | Path = HUB, precision: str = "fp16", preprocess: str = "auto") -> OriginalDeQA:
    """Load the package's model; what is not here, it downloads.

    Args:
        checkpoint: a folder in the layout of the published one, or a repository of the hub.
        precision: of the weights, `fp16` as the original, `bf16` or `fp32`.
        preprocess: `auto`, `pillow` or `tensor`, as in `dipp_toolkit.rewards.preprocess`.

    Raises:
        RequestError: an option has no such value, or there is no such model.
    """
    for option, value, known in (("precision", precision, tuple(PRECISIONS)), ("preprocess", preprocess, WAYS)):
        if value not in known:
            raise RequestError(
                f"The option {option} of the reward 'deqa' is '{value}'; expected {', '.join(known[:-1])} or "
                f"{known[-1]}."
            )
    folder = user_path(checkpoint)
    if not folder.is_dir() and is_local_name(checkpoint):
        raise RequestError(
            f"The option checkpoint of the reward 'deqa' names {folder}, which is not a folder. Fetch it with: "
            f"hf download {HUB} --local-dir {folder}"
        )
    place = str(folder) if folder.is_dir() else str(checkpoint)

    from src.constants import IMAGE_TOKEN_INDEX
    from src.mm_utils import tokenizer_image_token
    from src.model import MPLUGOwl2LlamaForCausalLM
    from transformers import AutoTokenizer, CLIPImageProcessor

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, use_fast=False)
        processor = CLIPImageProcessor.from_pretrained(place)
        model = MPLUGOwl2LlamaForCausalLM.from_pretrained(
            place, low_cpu_mem_usage=True, torch_dtype=PRECISIONS[precision], attn_implementation="eager"
        )
    except (OSError, ValueError) as error:
        raise RequestError(
            f"The model of the reward 'deqa' in {place} cannot be loaded: {first_line(error)}."
        ) from error
    question = tokenizer_image_token(QUESTION, tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")[None]
    # A word's ids begin with the one that begins every text.
    levels = [tokenizer(word).input_ids[1] for word in LEVELS]
    prepare = Preprocess(
        processor.crop_size["height"], "square", tuple(processor.image_mean), tuple(processor.image_std)
    )
    return OriginalDeQA(model, question, levels, prepare, preprocess)
