"""CycleReward as a differentiable reward on transformers, equal to the package `cyclereward`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dipp_imagereward.network import Sizes
from dipp_imagereward.reward import VOCABULARY, VOCABULARY_HUB, load_tokenizer
from dipp_toolkit.errors import RequestError
from dipp_toolkit.rewards.model_reward import ModelReward
from dipp_toolkit.rewards.preprocess import Preprocess
from dipp_toolkit.rewards.weights import fill, fill_positions, find_file
from dipp_toolkit.utils.device import sent
from dipp_toolkit.utils.tensor_files import read_state, tensors_of

from .network import TOKENS, CycleRewardNetwork, renamed

FILE = "model.safetensors"
HUBS = {variant: f"NagaSaiAbhinay/CycleReward-{variant}" for variant in ("Combo", "T2I", "I2T")}


class CycleReward(ModelReward):
    r"""CycleReward: $r(x, c) = \mathrm{head}(h)$.

    $h$ is the first token of a BERT that reads the prompt, 128 tokens of it, and attends to the image's tokens by
    BLIP's ViT-L/16, as ImageReward's. Its pairs were ordered by how much of a prompt comes back when its picture is
    described, or of a picture when its description is drawn (SBERT and DreamSim measured it); no person was asked. It
    was trained by $-\log \sigma(r - r')$ of a better and a worse one, so differences are log odds and the zero means
    nothing.

    The authors publish files of torch with their releases (`CycleReward-Combo.pth`), which `checkpoint` takes. The
    default is the copy that the package `imscore` reads, the same names in a safetensors file. Neither has been run
    here: the port has been held against the original package on random weights.

    Args:
        variant: `Combo`, trained on both kinds of pairs and what the authors recommend, `T2I` (two images for a text)
            or `I2T` (two texts for an image).
        checkpoint: a file of weights, a folder with `model.safetensors`, or another repository of the hub.
        vocabulary: BERT's `vocab.txt`, a folder with it, or another repository.
        precision: `fp32` or `bf16`.
        batch: images at a time, 0 for all.
        preprocess: `auto`, `pillow` or `tensor`.
        sizes: of an architecture other than the published one.

    Raises:
        RequestError: an option is out of range, or the weights are missing, damaged, or of another model.
    """

    name = "cyclereward"
    licence = "MIT"
    source = "Bahng et al. 2025, arXiv 2506.02095; weights: github.com/hjbahng/cyclereward"
    range = "log odds of a preference, up to a constant"
    blind_to = (
        "beauty, which it was not trained on; what lies outside the central square; what is finer than 224 pixels "
        "show; the prompt beyond 128 tokens"
    )

    def __init__(
        self,
        variant: str = "Combo",
        checkpoint: str | Path | None = None,
        vocabulary: str | Path | None = None,
        precision: str = "fp32",
        batch: int = 0,
        preprocess: str = "auto",
        sizes: Sizes | None = None,
    ):
        path, words = self.find_files(variant, checkpoint, vocabulary)
        self.tokenizer = load_tokenizer(words, TOKENS)
        sizes = sizes or Sizes()
        with torch.device("meta"):
            network = CycleRewardNetwork(sizes)
        fill(network, renamed(tensors_of(read_state(path), path)), path)
        fill_positions(network)
        super().__init__(network, Preprocess(sizes.image), way=preprocess, precision=precision, batch=batch)

    @classmethod
    def find_files(
        cls,
        variant: str = "Combo",
        checkpoint: str | Path | None = None,
        vocabulary: str | Path | None = None,
        **_others: Any,
    ) -> list[Path]:
        """The files of the weights and of the vocabulary, by the options of the reward; fetched where not here.

        Raises:
            RequestError: there is no such variant, or a file is not there.
        """
        if variant not in HUBS:
            raise RequestError(f"The reward '{cls.name}' comes as {', '.join(HUBS)}, not as {variant}.")
        return [
            find_file(cls.name, HUBS[variant], FILE, checkpoint),
            find_file(cls.name, VOCABULARY_HUB, VOCABULARY, vocabulary, option="vocabulary"),
        ]

    def read(self, prompts: Sequence[str]) -> Int[Tensor, "prompts two tokens"]:
        """Token ids and their mask; the text attends to the image, so there are no features to keep."""
        encodings = self.tokenizer.encode_batch(list(prompts))
        return sent(torch.tensor([[encoding.ids, encoding.attention_mask] for encoding in encodings]), self.device)

    def score(
        self, pixels: Float[Tensor, "batch 3 size size"], texts: Int[Tensor, "batch two tokens"] | None
    ) -> Float[Tensor, " batch"]:
        assert texts is not None
        scores: Tensor = self.network(pixels, texts[:, 0], texts[:, 1])
        return scores
