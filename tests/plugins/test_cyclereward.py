"""CycleReward against the golden numbers of the package `cyclereward`, and what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dipp_cyclereward.network import TOKENS, CycleRewardNetwork, renamed
from dipp_cyclereward.reward import CycleReward
from dipp_imagereward.network import Sizes
from dipp_toolkit import RequestError, load_reward
from dipp_toolkit.rewards.checks.run import check_reward
from golden.make import formula_images, formula_weights
from ports import check_central_differences, check_golden, check_promises, golden_of

SMALL = Sizes(
    image=64, patch=16, vision_width=32, vision_layers=2, vision_heads=2, text_width=24, text_layers=2, text_heads=2,
    vocabulary=100,
)  # fmt: skip


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert") / "vocab.txt"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cat", "##s", "the", "sea"]
    path.write_text("\n".join(words + [f"word{k}" for k in range(87)]) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as the authors publish them and as the hub has them."""
    folder = tmp_path_factory.mktemp("cyclereward")
    weights = formula_weights(golden_of("cyclereward")["shapes"])
    torch.save(weights, folder / "CycleReward-Combo.pth")
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def reward(folder: Path, vocabulary: Path) -> CycleReward:
    return CycleReward(checkpoint=folder, vocabulary=vocabulary, sizes=SMALL)


def test_it_is_the_original() -> None:
    """Every tensor of the original checkpoint finds its place: the golden scores depend on all of them."""
    golden = golden_of("cyclereward")
    network = CycleRewardNetwork(SMALL).eval()
    network.load_state_dict(renamed(formula_weights(golden["shapes"])))
    images, ids = formula_images(64).requires_grad_(True), torch.tensor(golden["ids"])
    check_golden(golden, network(images, ids, (ids != 0).long()), images)


def test_its_head_is_not_linear_and_its_scores_are_not_standardised(reward: CycleReward) -> None:
    images, texts = formula_images(64), reward.read(["a cat", "cats"])
    seen: list[torch.Tensor] = []
    handle = reward.network.head[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    scores = reward(images, ["a cat", "cats"])
    handle.remove()
    hidden = seen[0]
    linear = [layer for layer in reward.network.head if isinstance(layer, nn.Linear)]
    for layer in linear[:-1]:
        hidden = nn.functional.gelu(layer(hidden))
    torch.testing.assert_close(scores, linear[-1](hidden)[:, 0])
    assert texts.shape == (2, 2, TOKENS)


def test_it_reads_128_tokens(reward: CycleReward) -> None:
    ids, mask = reward.read(["A red CATS"])[0]
    assert ids[:7].tolist() == [2, 5, 6, 7, 8, 3, 0] and len(ids) == TOKENS == 128
    assert mask.tolist() == [1] * 6 + [0] * 122
    ids, mask = reward.read(["cat " * 2500])[0]
    assert len(ids) == 128 and ids[-1] == 3 and mask.all()


def test_both_published_formats_give_the_same_scores(reward: CycleReward, folder: Path, vocabulary: Path) -> None:
    other = CycleReward(checkpoint=folder / "CycleReward-Combo.pth", vocabulary=vocabulary, sizes=SMALL)
    images, prompts = formula_images(64), ["a red cat", "the sea"]
    assert torch.equal(other(images, prompts), reward(images, prompts))


def test_what_every_port_promises(reward: CycleReward) -> None:
    check_promises(reward)
    check_central_differences(reward)


def test_the_check_of_rewards_finds_nothing(folder: Path, vocabulary: Path) -> None:
    """By tensors alone: Pillow's rounding is no fault of a gradient."""
    reward = CycleReward(checkpoint=folder, vocabulary=vocabulary, sizes=SMALL, preprocess="tensor")
    rows = check_reward(reward, "cyclereward", seconds=0.001)
    assert [row for row in rows if row.status in ("failed", "warning")] == []


def test_wrong_options_get_a_sentence(folder: Path, vocabulary: Path) -> None:
    with pytest.raises(RequestError, match="comes as Combo, T2I, I2T, not as combination"):
        load_reward("cyclereward", variant="combination")
    with pytest.raises(RequestError, match=r"hf download NagaSaiAbhinay/CycleReward-T2I model\.safetensors"):
        load_reward("cyclereward", variant="T2I", checkpoint="./nowhere/x.pth", vocabulary=str(vocabulary))
    with pytest.raises(RequestError, match="tensors are missing"):
        CycleReward(checkpoint=folder, vocabulary=vocabulary)
