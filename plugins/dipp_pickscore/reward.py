"""PickScore as a differentiable reward on transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.blueprints import RewardBlueprint
from dipp_toolkit.rewards.clip_blueprints import clip_blueprint
from dipp_toolkit.rewards.model_reward import ModelReward
from dipp_toolkit.rewards.preprocess import Preprocess
from dipp_toolkit.rewards.weights import find_file, load_pretrained
from dipp_toolkit.utils.paths import is_local_name, user_path

HUB = "yuvalkirstain/PickScore_v1"
PROCESSOR_HUB = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class PickScore(ModelReward):
    r"""$r(x, c) = \tau \cos(f(x), g(c))$ with the towers and the logit scale $\tau$ of a fine-tuned CLIP ViT-H/14.

    Of two images for one prompt, a user picks the first with probability $\sigma(r(x, c) - r(y, c))$. Papers often
    divide by 100, which is $\tau$.

    Args:
        checkpoint: a folder in the Hugging Face layout, or a repository of the hub.
        processor: a folder or repository with CLIP's tokenizer; the checkpoint's own where a folder has one.
        precision: `fp32` or `bf16`.
        batch: images at a time, 0 for all.
        preprocess: `auto`, `pillow` or `tensor`.

    Raises:
        RequestError: an option is out of range, or the weights or the tokenizer are unavailable.
    """

    name = "pickscore"
    licence = "MIT"
    source = "Kirstain et al. 2023, arXiv 2305.01569; weights: huggingface.co/yuvalkirstain/PickScore_v1"
    range = "100 times a cosine; 17 to 24 in practice"
    blind_to = (
        "what lies outside the central square; what is finer than 224 pixels show; the prompt beyond 77 tokens; which "
        "word belongs to which thing, as other cosines of CLIP (Koishigarina et al. 2025, arXiv 2502.03566)"
    )

    def __init__(
        self,
        checkpoint: str | Path = HUB,
        processor: str | Path | None = None,
        precision: str = "fp32",
        batch: int = 0,
        preprocess: str = "auto",
    ):
        from transformers import AutoTokenizer, CLIPModel

        words = _words_place(checkpoint, processor)
        self.tokenizer: Any = _load(AutoTokenizer, words, "tokenizer")
        network = _load(CLIPModel, checkpoint, "weights")
        size = network.config.vision_config.image_size
        super().__init__(network, Preprocess(size, floor=True), way=preprocess, precision=precision, batch=batch)

    @classmethod
    def find_files(
        cls, checkpoint: str | Path = HUB, processor: str | Path | None = None, **_others: Any
    ) -> list[Path]:
        """The configurations of the network and of the tokenizer, by the options of the reward; fetched where not here.

        Raises:
            RequestError: a folder is not there.
        """
        places = (
            ("processor", _words_place(checkpoint, processor), "tokenizer_config.json"),
            ("checkpoint", checkpoint, "config.json"),
        )
        for _, place, _ in places:
            _check_place(place)
        return [
            user_path(place) / file
            if user_path(place).is_dir()
            else find_file(cls.name, str(place), file, option=option)
            for option, place, file in places
        ]

    def read(self, prompts: Sequence[str]) -> Float[Tensor, "prompts features"]:
        """Unit features of prompts; what is beyond CLIP's tokens is cut, as in the original."""
        length = self.network.config.text_config.max_position_embeddings
        ids = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self.device)
        pooled = self.network.text_model(input_ids=ids.input_ids, attention_mask=ids.attention_mask).pooler_output
        return torch.nn.functional.normalize(self.network.text_projection(pooled), dim=-1)

    def score(
        self, pixels: Float[Tensor, "batch 3 size size"], texts: Float[Tensor, "batch features"] | None
    ) -> Float[Tensor, " batch"]:
        assert texts is not None
        projected = self.network.visual_projection(self.network.vision_model(pixel_values=pixels).pooler_output)
        features = torch.nn.functional.normalize(projected.float(), dim=-1)
        return self.network.logit_scale.float().exp() * torch.linalg.vecdot(features, texts.float())


def blueprint() -> RewardBlueprint:
    """PickScore without its weights."""
    return clip_blueprint(HUB, "ViT-H-14")


def _words_place(checkpoint: str | Path, processor: str | Path | None) -> str | Path:
    """Where the tokenizer is: where the user says, in the checkpoint's folder, or in CLIP's repository."""
    if processor is not None:
        return processor
    folder = user_path(checkpoint)
    return folder if folder.is_dir() and any(folder.glob("tokenizer*")) else PROCESSOR_HUB


def _check_place(place: str | Path) -> None:
    """Refuse a folder that is not there.

    Raises:
        RequestError: as a sentence.
    """
    path = user_path(place)
    if not path.is_dir() and is_local_name(place):
        raise RequestError(
            f"There is no folder {path} for the reward 'pickscore' (looked in {path.parent.resolve()}). Fetch it with: "
            f"hf download {HUB} --local-dir {path}"
        )


def _load(kind: Any, place: str | Path, what: str) -> Any:
    """Anything of transformers' `from_pretrained`.

    Raises:
        RequestError: it is missing, or it is not a tokenizer.
    """
    _check_place(place)
    try:
        return load_pretrained(kind, place, "pickscore", what)
    except RequestError as error:
        raise RequestError(
            f"{error} Fetch it with: hf download {HUB}, and {PROCESSOR_HUB} for the tokenizer."
        ) from error
