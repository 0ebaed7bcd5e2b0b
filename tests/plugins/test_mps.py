"""MPS against golden numbers of the original's classes, and what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from benchmarks.reward_parity.small_models import PROMPTS, picture_of, small_pictures, write_tokenizer
from dipp_mps.network import END, MPSNetwork, Sizes, converted, kept_words
from dipp_mps.reward import MPS
from dipp_toolkit import RequestError, load_reward
from dipp_toolkit.rewards.checks.run import check_reward
from dipp_toolkit.rewards.text_features import FEW
from golden.make import formula_images, formula_weights
from ports import check_central_differences, check_golden, check_promises, golden_of


def sizes() -> Sizes:
    golden = golden_of("mps")
    text = {key: value for key, value in golden["text"].items() if key != "eos_token_id"}
    return Sizes(text=text, vision=golden["vision"], width=16, layers=2, heads=2, head_width=8)


def original_weights() -> dict[str, Tensor]:
    """As the original's checkpoint has them, with the buffers that no score depends on or that are known."""
    weights = formula_weights(golden_of("mps")["shapes"])
    weights["cross_model.layers.0.0.fn.norm.bias"] = torch.zeros(16)
    weights["cross_model.layers.0.1.fn.rotary_emb.inv_freq"] = torch.ones(4)
    weights["model.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return weights


@pytest.fixture(scope="module")
def network() -> MPSNetwork:
    network = MPSNetwork(sizes()).eval().requires_grad_(False)
    network.load_state_dict(converted(formula_weights(golden_of("mps")["shapes"])))
    return network


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the layout of the hub's copy, whose names begin with `mps.`."""
    folder = tmp_path_factory.mktemp("mps")
    save_file({f"mps.{name}": tensor for name, tensor in original_weights().items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def reward(folder: Path, tokenizer: Path) -> MPS:
    return MPS(checkpoint=folder, tokenizer=tokenizer, sizes=sizes())


def golden_ids() -> Tensor:
    ids = torch.full((3, 77), END)
    ids[:, :6] = torch.tensor(golden_of("mps")["ids"])
    return ids


def scores_of(network: MPSNetwork, images: Tensor, threshold: float) -> Tensor:
    texts = network.read(golden_ids())
    words, ends, condition = texts[:2, :-1], texts[:2, -1], texts[2, :-1]
    features = network(images, words, kept_words(words, condition, threshold))
    return network.scale * F.cosine_similarity(features, ends)


def test_it_is_the_original(network: MPSNetwork) -> None:
    golden, images = golden_of("mps"), formula_images(56).requires_grad_(True)
    check_golden(golden, scores_of(network, images, 0.3), images)


def test_it_is_the_original_with_the_threshold_of_its_training(network: MPSNetwork) -> None:
    golden, images = golden_of("mps"), formula_images(56)
    loose = scores_of(network, images, 0.01)
    torch.testing.assert_close(loose, torch.tensor(golden["loose_scores"]), rtol=0, atol=1e-5)
    assert (loose - torch.tensor(golden["scores"])).abs().min() > 1e-3  # the words that are kept matter


def test_a_condition_keeps_the_words_that_it_is_nearest_to(network: MPSNetwork) -> None:
    texts = network.read(golden_ids())
    kept = kept_words(texts[:2, :-1], texts[2, :-1], 0.3)
    assert kept.sum(dim=1).tolist() == golden_of("mps")["kept"]
    words = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.4, 0.0]], [[0.0, 0.1], [0.02, 0.0], [-5.0, 0.0]]])
    kept = kept_words(words, torch.tensor([[1.0, 0.0], [0.0, 0.5]]), 0.3)
    # Of 1, 0.5 and 0.4, and of 0.05, 0.02 and 0: each text by its own largest.
    assert kept.tolist() == [[True, True, True], [True, True, False]]
    assert kept_words(words, torch.tensor([[1.0, 0.0]]), 0.5).tolist() == [[True, False, False], [False, True, False]]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_texts_are_read_as_the_original_reads_them(reward: MPS, tokenizer: Path, prompt: str) -> None:
    """By transformers' tokenizer, cut to 77 and filled up with the token that ends a text, which counts."""
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tokenizer)
    ids = words(prompt, max_length=77, padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert reward.tokenizer.encode(prompt).ids == ids[0].tolist() and ids[0, -1] == END
    torch.testing.assert_close(reward.read([prompt]), reward.network.read(ids), rtol=0, atol=1e-6)


def test_pictures_are_prepared_as_transformers_does(reward: MPS) -> None:
    from transformers.models.clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    for image in small_pictures(3):
        expected = processor(picture_of(image), return_tensors="pt").pixel_values
        torch.testing.assert_close(reward.preprocess(image), expected, rtol=0, atol=1e-6)


def test_the_originals_names_do_as_well(reward: MPS, tokenizer: Path, tmp_path: Path) -> None:
    torch.save(original_weights(), tmp_path / "tensors.pth")
    other = MPS(checkpoint=tmp_path / "tensors.pth", tokenizer=tokenizer, sizes=sizes())
    images, prompts = formula_images(64), ["a red cat", "the sea"]
    assert torch.equal(other(images, prompts), reward(images, prompts))


def test_the_condition_and_the_threshold_are_the_users(reward: MPS, folder: Path, tokenizer: Path) -> None:
    images, prompts = formula_images(64), ["a red cat on a mat", "the sea at night"]
    options = {"checkpoint": folder, "tokenizer": tokenizer, "sizes": sizes()}
    scores = reward(images, prompts)
    for changed in ({"condition": "hands"}, {"threshold": 0.9}):
        assert not torch.equal(MPS(**options, **changed)(images, prompts), scores)


def test_the_condition_is_read_once(folder: Path, tokenizer: Path) -> None:
    reward = MPS(checkpoint=folder, tokenizer=tokenizer, sizes=sizes())
    asked: list[str] = []
    read = reward.texts._encode
    reward.texts._encode = lambda prompts: (asked.extend(prompts), read(prompts))[1]
    for _ in range(3):
        reward(formula_images(64), ["a red cat", "a red cat"])
    assert asked == ["a red cat"] * FEW + [reward.condition] * FEW


def test_what_every_port_promises(reward: MPS) -> None:
    check_promises(reward)
    check_central_differences(reward)


def test_bf16_is_close(reward: MPS, folder: Path, tokenizer: Path) -> None:
    half = MPS(checkpoint=folder, tokenizer=tokenizer, sizes=sizes(), precision="bf16")
    images, prompts = formula_images(64), ["a red cat", "the sea"]
    torch.testing.assert_close(half(images, prompts), reward(images, prompts), rtol=0, atol=0.05)


def test_the_check_of_rewards_finds_nothing(folder: Path, tokenizer: Path) -> None:
    """By tensors alone: Pillow's rounding is no fault of a gradient."""
    reward = MPS(checkpoint=folder, tokenizer=tokenizer, sizes=sizes(), preprocess="tensor")
    rows = check_reward(reward, "mps", seconds=0.001)
    assert [row for row in rows if row.status in ("failed", "warning")] == []


class PickledModule:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must never be printed",)


def test_the_pickled_module_is_refused_and_the_way_out_is_named(
    tmp_path: Path, tokenizer: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "MPS_overall_checkpoint.pth"
    torch.save(PickledModule(), path)
    with pytest.raises(RequestError, match=r"is refused.*hf download RE-N-Y/mpsv1 model\.safetensors"):
        load_reward("mps", checkpoint=str(path), tokenizer=str(tokenizer))
    assert "this must never be printed" not in capfd.readouterr().out


def test_wrong_options_get_a_sentence(folder: Path, tokenizer: Path) -> None:
    with pytest.raises(RequestError, match="The threshold of the reward 'mps' is 1; expected less than 1"):
        load_reward("mps", threshold=1, checkpoint=str(folder), tokenizer=str(tokenizer))
    with pytest.raises(RequestError, match=r"is not a tokenizer: .*hf download laion/.* tokenizer\.json"):
        load_reward("mps", checkpoint=str(folder), tokenizer=str(tokenizer / "tokenizer_config.json"))
    with pytest.raises(RequestError, match="tensors are missing"):
        MPS(checkpoint=folder, tokenizer=tokenizer)
