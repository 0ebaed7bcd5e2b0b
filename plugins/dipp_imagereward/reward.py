"""ImageReward as a differentiable reward on transformers, equal to the package `image-reward`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dipp_toolkit.errors import RequestError, first_line
from dipp_toolkit.rewards.model_reward import ModelReward
from dipp_toolkit.rewards.preprocess import Preprocess
from dipp_toolkit.rewards.weights import fill, fill_positions, find_file
from dipp_toolkit.utils.device import sent
from dipp_toolkit.utils.json_files import read_json
from dipp_toolkit.utils.paths import user_path
from dipp_toolkit.utils.tensor_files import read_state, tensors_of

from .network import TOKENS, ImageRewardNetwork, Sizes, converted

HUB, FILE = "THUDM/ImageReward", "ImageReward.pt"
VOCABULARY_HUB, VOCABULARY = "google-bert/bert-base-uncased", "vocab.txt"
MEAN, STD = 0.16717362830052426, 1.0333394966054072


class ImageReward(ModelReward):
    r"""ImageReward v1.0: $r(x, c) = (\mathrm{head}(h) - 0.167) / 1.033$.

    $h$ is the first token of a BERT that reads the prompt, 35 tokens of it, and attends to the image's tokens by BLIP's
    ViT-L/16. Scores are standardised: 0 is the mean and 1 a deviation of the authors' set of generated pictures.

    The package scores pictures through Pillow and trains (its ReFL) through tensors; `preprocess` says which.

    Args:
        checkpoint: `ImageReward.pt`, a folder with it, or another repository of the hub.
        vocabulary: BERT's `vocab.txt`, a folder with it, or another repository.
        med_config: the original's `med_config.json`, for a text network of other sizes.
        precision: `fp32` or `bf16`.
        batch: images at a time, 0 for all.
        preprocess: `auto`, `pillow` or `tensor`.
        sizes: of an architecture other than the published one.

    Raises:
        RequestError: an option is out of range, or the weights are missing, damaged, or of another model.
    """

    name = "imagereward"
    licence = "Apache-2.0"
    source = "Xu et al. 2023, arXiv 2304.05977; weights: huggingface.co/THUDM/ImageReward"
    range = "standardised, mostly in [-2.5, 2]"
    blind_to = "what lies outside the central square; what is finer than 224 pixels show; the prompt beyond 35 tokens"

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        vocabulary: str | Path | None = None,
        med_config: str | Path | None = None,
        precision: str = "fp32",
        batch: int = 0,
        preprocess: str = "auto",
        sizes: Sizes | None = None,
    ):
        path, words = self.find_files(checkpoint, vocabulary)
        self.tokenizer = load_tokenizer(words)
        sizes = sizes or Sizes()
        if med_config is not None:
            sizes = sizes.with_text(read_json(user_path(med_config)))
        with torch.device("meta"):
            network = ImageRewardNetwork(sizes)
        fill(network, converted(tensors_of(read_state(path), path)), path)
        fill_positions(network)
        super().__init__(network, Preprocess(sizes.image), way=preprocess, precision=precision, batch=batch)

    @classmethod
    def find_files(
        cls, checkpoint: str | Path | None = None, vocabulary: str | Path | None = None, **_others: Any
    ) -> list[Path]:
        """The files of the weights and of the vocabulary, by the options of the reward; fetched where not here.

        Raises:
            RequestError: one is not there.
        """
        return [
            find_file(cls.name, HUB, FILE, checkpoint),
            find_file(cls.name, VOCABULARY_HUB, VOCABULARY, vocabulary, option="vocabulary"),
        ]

    def read(self, prompts: Sequence[str]) -> Int[Tensor, "prompts two tokens"]:
        """Token ids and their mask; the text attends to the image, so there are no features to keep."""
        encodings = self.tokenizer.encode_batch(list(prompts))
        tokens = torch.tensor([[encoding.ids, encoding.attention_mask] for encoding in encodings])
        return sent(tokens, torch.device(self.device))

    def score(
        self, pixels: Float[Tensor, "batch 3 size size"], texts: Int[Tensor, "batch two tokens"] | None
    ) -> Float[Tensor, " batch"]:
        assert texts is not None
        scores: Tensor = self.network(pixels, texts[:, 0], texts[:, 1])
        return (scores.float() - MEAN) / STD


def load_tokenizer(path: Path, tokens: int = TOKENS) -> Any:
    """BERT's lower-casing word pieces, with the two tokens BLIP adds.

    Args:
        path: BERT's `vocab.txt`.
        tokens: that every text is cut and padded to.

    Raises:
        RequestError: the file is not a vocabulary.
    """
    from tokenizers import BertWordPieceTokenizer

    try:
        tokenizer = BertWordPieceTokenizer(str(path), lowercase=True)
    except Exception as error:  # the library raises Exception itself
        raise RequestError(f"{path} is not a vocabulary of BERT: {first_line(error)}.") from error
    tokenizer.add_special_tokens(["[DEC]", "[ENC]"])
    tokenizer.enable_truncation(tokens)
    tokenizer.enable_padding(length=tokens, pad_id=tokenizer.token_to_id("[PAD]"))
    return tokenizer
