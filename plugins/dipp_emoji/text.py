"""Captions as token ids of a fixed length, for the small text encoders of the emoji world's rewards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dipp_toolkit.rewards.weights import load_pretrained

EOS = 1
"""The end token's id. The text encoders read a caption off at its end token and are causal, so padding after it, which
has id 0, cannot change the result and no mask is needed."""


class CaptionTokenizer:
    """Token ids of captions, always padded to full length, so that a score never depends on its batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path) -> CaptionTokenizer:
        """The tokenizer saved beside a model's weights.

        Raises:
            RequestError: it is missing or cannot be loaded.
        """
        return cls(load_pretrained(PreTrainedTokenizerFast, folder, folder.name, "tokenizer"))

    def __call__(self, prompts: Sequence[str]) -> Int[Tensor, "batch tokens"]:
        """Ids of each prompt, the end token after its last word.

        Longer prompts lose their last words, and words outside the world's vocabulary become the unknown word.
        """
        encoded = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        ids: Tensor = encoded["input_ids"]
        return ids
