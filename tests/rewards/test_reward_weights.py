"""Weights of rewards: whole or refused, and the advice where a file is not here names the option that takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dipp_cyclereward.reward import CycleReward
from dipp_imagereward.reward import ImageReward
from dipp_mps.reward import MPS
from dipp_toolkit.errors import RequestError
from dipp_toolkit.rewards.weights import load_pretrained
from dipp_vqascore.reward import VQAScore


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    network = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    network.save_pretrained(tmp_path)
    loaded = load_pretrained(GPT2LMHeadModel, tmp_path, "a")
    assert torch.equal(loaded.lm_head.weight, network.transformer.wte.weight)


def test_a_head_that_the_checkpoint_lacks_is_not_made_up(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2Model

    GPT2Model(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=1)).save_pretrained(tmp_path)
    with pytest.raises(RequestError, match=r"weights of 'a' .* do not fit: 1 of \d+ tensors .*such as 'score\.weight'"):
        load_pretrained(GPT2ForSequenceClassification, tmp_path, "a")


@pytest.mark.parametrize(
    ("reward", "option"),
    [(MPS, "tokenizer"), (VQAScore, "tokenizer"), (ImageReward, "vocabulary"), (CycleReward, "vocabulary")],
)
def test_the_advice_for_a_second_file_names_its_option(reward: Any, option: str, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"")
    with pytest.raises(RequestError) as told:  # tests are offline, so the published one cannot be fetched
        reward.find_files(checkpoint=weights)
    advised = str(told.value).rpartition("--set ")[2]
    assert advised == f"reward.{reward.name}.{option}=FOLDER."
    wanted = str(told.value).removeprefix("The file ").partition(" of the reward")[0]
    (tmp_path / wanted).write_bytes(b"")
    assert tmp_path / wanted in reward.find_files(checkpoint=weights, **{option: tmp_path})
