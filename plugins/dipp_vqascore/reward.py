"""VQAScore as a differentiable reward on transformers, equal to the package `t2v_metrics`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dipp_toolkit.errors import RequestError, first_line
from dipp_toolkit.models.files.weight_files import PICKLE, check_shards, weights_in
from dipp_toolkit.rewards.model_reward import ModelReward
from dipp_toolkit.rewards.preprocess import Preprocess
from dipp_toolkit.rewards.text_features import FEW, TextFeatures
from dipp_toolkit.rewards.weights import fill, fill_positions, find_file
from dipp_toolkit.utils.device import sent
from dipp_toolkit.utils.paths import user_path
from dipp_toolkit.utils.precision import DTYPES
from dipp_toolkit.utils.tensor_files import read_state, tensors_of

from .network import END, HUB, PAD, Sizes, VQAScoreNetwork, converted, tie_words

FILE = "pytorch_model.bin"
TOKENIZER_HUB, TOKENIZER = "google/flan-t5-xl", "tokenizer.json"
BEFORE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER:"
)
QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'
AFTER = "{question} ASSISTANT:"
ANSWER = "Yes"
MOST_WORDS = 2048
"""Tokens of a question and of what stands before it, as the original cuts them."""
MOST_TEXTS = 4096
"""Questions whose tokens are kept, 2,000 numbers each."""


class VQAScore(ModelReward):
    r"""VQAScore: $r(x, c) = \sqrt{p(\text{Yes} \mid x, q) \; p(\text{end} \mid x, q, \text{Yes})}$.

    $q$ asks *Does this figure show "c"? Please answer yes or no.* of CLIP-FlanT5, in which a T5 reads the image's
    tokens by CLIP ViT-L/14 among the words. The paper's score is $p(\text{Yes})$; the authors' package takes the mean
    of both tokens' log-probabilities, and so does this. Pictures are padded to a square with CLIP's mean colour.

    The reward `judge` asks the same question of any model behind a server, without a gradient.

    The sizes are read from the weights: the XL model's by default, the XXL one's from a folder that holds its shards,
    which are read one by one with `weights_only=True`. The published weights have not been run here: the port has been
    held against the original package on random ones.

    Args:
        checkpoint: a file of weights, a folder with one or with its shards, or another repository of the hub.
        tokenizer: `tokenizer.json` of T5, a folder with it, or another repository.
        question: with `{prompt}` where the prompt belongs.
        precision: `fp32` or `bf16`; the original runs in the latter.
        batch: images at a time, 0 for all.
        preprocess: `auto`, `pillow` or `tensor`.

    Raises:
        RequestError: an option is out of range, or a file is missing, damaged, or of another model.
    """

    name = "vqascore"
    licence = "Apache-2.0"
    source = "Lin et al. 2024, arXiv 2404.01291; weights: huggingface.co/zhiqiulin/clip-flant5-xl"
    range = "a probability, in [0, 1]"
    blind_to = (
        "what the question does not ask for, beauty above all; what is finer than 336 pixels on the longer side show"
    )

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        tokenizer: str | Path | None = None,
        question: str = QUESTION,
        precision: str = "fp32",
        batch: int = 0,
        preprocess: str = "auto",
    ):
        if "{prompt}" not in question:
            raise RequestError(
                f"The question of the reward '{self.name}' is '{question}', without {{prompt}}; write {{prompt}} where "
                "the prompt belongs."
            )
        *files, words = self.find_files(checkpoint, tokenizer)
        self.question, self.tokenizer = question, load_tokenizer(words)
        tensors = {name: tensor for file in files for name, tensor in tensors_of(read_state(file), file).items()}
        network, size = build(tensors, files[0], DTYPES.get(precision, torch.float32))
        prepared = Preprocess(size, "square")
        super().__init__(network, prepared, way=preprocess, precision=precision, batch=batch)
        self.texts = TextFeatures(self.read, most=MOST_TEXTS, together=FEW)
        self.before, self.answer = self._tokens(BEFORE), self._tokens(ANSWER)

    @classmethod
    def find_files(
        cls, checkpoint: str | Path | None = None, tokenizer: str | Path | None = None, **_others: Any
    ) -> list[Path]:
        """The files of the weights, and that of the tokenizer, by the options of the reward; fetched where not here.

        Raises:
            RequestError: one is not there, or an index of shards leads elsewhere.
        """
        words = find_file(cls.name, TOKENIZER_HUB, TOKENIZER, tokenizer, option="tokenizer")
        folder = None if checkpoint is None else user_path(checkpoint)
        weights = None
        if folder is not None and folder.is_dir():
            weights = weights_in(folder) or weights_in(folder, PICKLE)
        if folder is None or weights is None:
            return [find_file(cls.name, HUB, FILE, checkpoint), words]
        check_shards(folder, weights)
        return [*(folder / file for file in weights.files), words]

    def read(self, prompts: Sequence[str]) -> Int[Tensor, "prompts words"]:
        """Tokens of the questions, filled up on the right; on the host, where their lengths are read."""
        room = MOST_WORDS - len(self.before) - 1
        ids = torch.full((len(prompts), room), PAD)
        for row, prompt in zip(ids, prompts, strict=True):
            words = self._tokens(AFTER.format(question=self.question.replace("{prompt}", prompt)))[:room]
            row[: len(words)] = words
        return ids

    def score(
        self, pixels: Float[Tensor, "batch 3 size size"], texts: Int[Tensor, "batch words"] | None
    ) -> Float[Tensor, " batch"]:
        assert texts is not None
        longest = int((texts != PAD).sum(dim=1).max())
        tokens = (self.before, texts[:, :longest], self.answer)
        logs: Tensor = self.network(pixels, *(sent(ids, pixels.device) for ids in tokens))
        return logs.exp()

    def _tokens(self, text: str) -> Int[Tensor, " words"]:
        """Of a text, with the token that ends it, which the original has after every part of a question too."""
        # SentencePiece, which the original reads with, sees one blank for several and none at the ends.
        return torch.tensor(self.tokenizer.encode(" ".join(text.split())).ids)


def build(tensors: dict[str, Tensor], path: Path, dtype: torch.dtype = torch.float32) -> tuple[VQAScoreNetwork, int]:
    """The network that a checkpoint is of, filled, and the side of what it sees.

    Args:
        tensors: of the checkpoint, by its own names.
        path: where they are from, for messages.
        dtype: the weights are kept in.

    Raises:
        RequestError: some are missing, or of another model.
    """
    try:
        renamed = converted(tensors)
        sizes = Sizes.of(renamed)
    except KeyError as error:
        raise RequestError(f"{path} does not fit: it has no {error}, as CLIP-FlanT5 has.") from error
    with torch.device("meta"):
        network = VQAScoreNetwork(sizes)
    fill(network, renamed, path, dtype)
    fill_positions(network)
    tie_words(network)
    return network, sizes.image


def load_tokenizer(path: Path) -> Any:
    """T5's tokenizer.

    Raises:
        RequestError: the file is not one.
    """
    from tokenizers import Tokenizer

    fetch = f"hf download {TOKENIZER_HUB} {TOKENIZER}"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise RequestError(f"{path} is not a tokenizer: {first_line(error)}. Fetch it again: {fetch}") from error
    if tokenizer.encode(ANSWER).ids[-1:] != [END]:
        raise RequestError(f"{path} is not T5's tokenizer, which ends a text with token {END}. It is: {fetch}")
    return tokenizer
