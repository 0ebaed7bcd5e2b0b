"""MPS as a differentiable reward on transformers, equal to the original's arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dipp_toolkit.errors import RequestError, first_line
from dipp_toolkit.rewards.model_reward import ModelReward
from dipp_toolkit.rewards.preprocess import Preprocess
from dipp_toolkit.rewards.text_features import FEW, TextFeatures
from dipp_toolkit.rewards.weights import fill, fill_positions, find_file
from dipp_toolkit.utils.device import sent
from dipp_toolkit.utils.tensor_files import read_state, tensors_of

from .network import END, HUB, MPSNetwork, Sizes, converted, kept_words

FILE = "model.safetensors"
TOKENIZER_HUB, TOKENIZER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "tokenizer.json"
WORDS = 77
"""What CLIP reads of a prompt, its two ends among them."""
OVERALL = (
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, instance, "
    "texture, quantity, attributes, position, number, location, word, things."
)
"""The original's condition for overall preference."""
END_TEXT = "<|endoftext|>"
FETCH = f"hf download {TOKENIZER_HUB} {TOKENIZER}"
MOST_TEXTS = 1024
"""Prompts whose features are kept: 78 rows of 1024 numbers each, which are 320 MB of float32 in all."""


class MPS(ModelReward):
    r"""Multi-dimensional Preference Score: $r(x, c) = \tau \cos(f(x, c), g(c))$.

    $g(c)$ is the prompt's feature by a fine-tuned CLIP ViT-H/14, and $f(x, c)$ the class token of the image once it has
    gone through four layers that attend to the prompt's words. Of these a condition $k$ picks some: word $i$ is seen
    where $\max_j w_i \cdot k_j > \theta \max_{i,j} w_i \cdot k_j$. The weights that were published are trained on
    overall preference, so other conditions than `condition`'s default are outside of what they know.

    The original has two thresholds $\theta$: 0.3 in the scripts that its published accuracies are from, and 0.01 in the
    module's own `forward`, with which it was trained and which the package `imscore` has. It divides by the largest
    product of a batch; here that is of a prompt, as where the original scores one prompt at a time.

    The authors' `MPS_overall_checkpoint.pth` is a pickled module in half precision, which is refused. The default is
    the copy of its tensors that `imscore` reads. It has not been run here: the port has been held against the
    original's code on random weights.

    Args:
        checkpoint: a file of weights, a folder with `model.safetensors`, or another repository of the hub.
        tokenizer: `tokenizer.json` of CLIP ViT-H/14, a folder with it, or another repository.
        condition: a text, whose words say what matters.
        threshold: $\theta$, below 1.
        precision: `fp32` or `bf16`.
        batch: images at a time, 0 for all.
        preprocess: `auto`, `pillow` or `tensor`.
        sizes: of an architecture other than the published one.

    Raises:
        RequestError: an option is out of range, or a file is missing, damaged, or of another model.
    """

    name = "mps"
    licence = "MIT"
    source = "Zhang et al. 2024, arXiv 2405.14705; weights: huggingface.co/RE-N-Y/mpsv1"
    range = "a cosine times a learnt scale, 100 at most"
    blind_to = (
        "what lies outside the central square; what is finer than 224 pixels show; the prompt beyond 77 tokens, and "
        "those words of it that the condition does not pick"
    )

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        tokenizer: str | Path | None = None,
        condition: str = OVERALL,
        threshold: float = 0.3,
        precision: str = "fp32",
        batch: int = 0,
        preprocess: str = "auto",
        sizes: Sizes | None = None,
    ):
        if not threshold < 1:
            raise RequestError(f"The threshold of the reward '{self.name}' is {threshold}; expected less than 1.")
        path, words = self.find_files(checkpoint, tokenizer)
        self.condition, self.threshold = condition, threshold
        self.tokenizer = load_tokenizer(words)
        sizes = sizes or Sizes()
        with torch.device("meta"):
            network = MPSNetwork(sizes)
        fill(network, converted(tensors_of(_read(path), path)), path)
        fill_positions(network)
        prepared = Preprocess(int(sizes.vision["image_size"]), floor=True)
        super().__init__(network, prepared, way=preprocess, precision=precision, batch=batch)
        self.texts = TextFeatures(self.read, most=MOST_TEXTS, together=FEW)

    @classmethod
    def find_files(
        cls, checkpoint: str | Path | None = None, tokenizer: str | Path | None = None, **_others: Any
    ) -> list[Path]:
        """The files of the weights and of the tokenizer, by the options of the reward; fetched where not here.

        Raises:
            RequestError: one is not there.
        """
        return [
            find_file(cls.name, HUB, FILE, checkpoint),
            find_file(cls.name, TOKENIZER_HUB, TOKENIZER, tokenizer, option="tokenizer"),
        ]

    def read(self, prompts: Sequence[str]) -> Float[Tensor, "prompts words_and_end width"]:
        """Features of the words of prompts, cut and filled up to 77, and of each as a whole."""
        encodings = self.tokenizer.encode_batch(list(prompts))
        features: Tensor = self.network.read(sent(torch.tensor([encoding.ids for encoding in encodings]), self.device))
        return features

    def score(
        self,
        pixels: Float[Tensor, "batch 3 size size"],
        texts: Float[Tensor, "batch words_and_end width"] | None,
    ) -> Float[Tensor, " batch"]:
        assert texts is not None
        words, ends = texts[:, :-1], texts[:, -1]
        kept = kept_words(words, self.texts([self.condition])[0, :-1], self.threshold)
        features = self.network(pixels, words, kept)
        return self.network.scale * F.cosine_similarity(features.float(), ends.float())


def load_tokenizer(path: Path) -> Any:
    """CLIP's byte pairs, cut to 77 and filled up with the token that ends a text, as the original fills them.

    Raises:
        RequestError: the file is not CLIP's tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise RequestError(f"{path} is not a tokenizer: {first_line(error)}. Fetch it again: {FETCH}") from error
    if tokenizer.id_to_token(END) != END_TEXT or not tokenizer.encode("").ids:
        raise RequestError(f"{path} is not CLIP's tokenizer, whose token {END} is '{END_TEXT}'. It is: {FETCH}")
    tokenizer.enable_truncation(WORDS)
    tokenizer.enable_padding(length=WORDS, pad_id=END, pad_token=END_TEXT)
    return tokenizer


def _read(path: Path) -> dict[str, Any]:
    """The weights.

    Raises:
        RequestError: they cannot be read, or are the authors' pickled module.
    """
    try:
        return read_state(path)
    except RequestError as error:
        raise RequestError(
            f"{error} The authors' MPS_overall_checkpoint.pth is a pickled module and is always refused; its tensors "
            f"alone are published too: hf download {HUB} {FILE}."
        ) from error
