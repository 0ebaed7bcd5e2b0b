"""VQAScore against golden numbers of the package `t2v_metrics`, and what it promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.reward_parity.small_models import picture_of, small_pictures
from dipp_toolkit import RequestError, load_reward
from dipp_toolkit.rewards.checks.run import check_reward
from dipp_toolkit.rewards.preprocess import CLIP_MEAN, CLIP_STD
from dipp_vqascore.network import PAD, WORDS, Sizes, VQAScoreNetwork, converted
from dipp_vqascore.reward import VQAScore, build
from golden.make import formula_images, formula_weights
from ports import check_central_differences, check_golden, check_promises, golden_of

SHARDS = "pytorch_model-0000{}-of-00002.bin"


def original_weights() -> dict[str, Tensor]:
    return formula_weights(golden_of("vqascore")["shapes"])


def write_words(folder: Path, stripped: bool = True) -> Path:
    content = golden_of("t5_words")["tokenizer"]
    if not stripped:  # as files from before it was converted with a step for blanks at the end
        parts = content["normalizer"]["normalizers"]
        content["normalizer"]["normalizers"] = [part for part in parts if part["type"] != "Strip"]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and a tokenizer as they are published."""
    folder = tmp_path_factory.mktemp("vqascore")
    torch.save(original_weights(), folder / "pytorch_model.bin")
    write_words(folder)
    return folder


@pytest.fixture(scope="module")
def reward(folder: Path) -> VQAScore:
    return VQAScore(checkpoint=folder, tokenizer=folder)


def golden_logs(network: VQAScoreNetwork, images: Tensor, **changed: Any) -> Tensor:
    ids = {key: torch.tensor(golden_of("vqascore")[key]) for key in ("before", "after", "answer")} | changed
    return network(images, ids["before"], ids["after"], ids["answer"])


def test_it_is_the_original() -> None:
    """The sizes are read from the weights, and every tensor finds its place."""
    golden = golden_of("vqascore")
    network, size = build(original_weights(), Path("golden"))
    images = formula_images(size).requires_grad_(True)
    check_golden(golden, golden_logs(network.eval().requires_grad_(False), images).exp(), images)


def test_padding_is_not_read(reward: VQAScore) -> None:
    images, after = formula_images(56), torch.tensor(golden_of("vqascore")["after"])
    longer = torch.nn.functional.pad(after, (0, 20), value=PAD)
    torch.testing.assert_close(
        golden_logs(reward.network, images, after=longer), golden_logs(reward.network, images), rtol=0, atol=1e-5
    )


def test_rows_beyond_the_words_of_t5_are_cut_off_and_one_table_is_left() -> None:
    weights = {"shared.weight": torch.ones(WORDS + 28, 2), "lm_head.weight": torch.ones(WORDS + 28, 2)}
    found = converted(weights)
    assert {name: len(tensor) for name, tensor in found.items()} == dict.fromkeys(found, WORDS)
    network, _ = build(original_weights(), Path("golden"))
    tables = {network.t5.shared.weight, network.t5.encoder.embed_tokens.weight, network.t5.decoder.embed_tokens.weight}
    assert len(tables) == 1


def test_the_published_sizes_are_read_from_shapes() -> None:
    with torch.device("meta"):
        state = VQAScoreNetwork(Sizes(text_layers=1, vision_layers=1)).state_dict()
    # The checkpoint has one layer more of CLIP than is run.
    more = {name.replace("layers.0", "layers.1"): value for name, value in state.items() if "layers.0" in name}
    assert Sizes.of(state | more) == Sizes(text_layers=1, vision_layers=1)


@pytest.mark.parametrize("stripped", [True, False])
def test_questions_are_read_as_sentencepiece_reads_them(folder: Path, tmp_path: Path, stripped: bool) -> None:
    golden = golden_of("t5_words")
    reward = VQAScore(checkpoint=folder, tokenizer=write_words(tmp_path, stripped))
    for ids, expected in zip(reward.read(golden["prompts"]), golden["ids"], strict=True):
        assert ids[: len(expected)].tolist() == expected and not ids[len(expected) :].any()
    assert reward.before.tolist() == golden["before"] and reward.answer.tolist() == golden["answer"]
    assert reward.read(["cat " * 5000]).shape == (1, 2047 - len(golden["before"]))


def test_pictures_are_prepared_as_the_package_does(reward: VQAScore) -> None:
    """Pasted onto a square of the mean colour, resized by Pillow, normalised."""
    mean, std = (torch.tensor(channels)[:, None, None] for channels in (CLIP_MEAN, CLIP_STD))
    for image in (*small_pictures(2), torch.zeros(1, 3, 90, 61), torch.zeros(1, 3, 33, 33)):
        picture = picture_of(image)
        side = max(picture.size)
        square = Image.new("RGB", (side, side), (122, 116, 104))
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        small = square.resize((56, 56), Image.Resampling.BICUBIC)
        levels = torch.tensor(list(small.tobytes()), dtype=torch.float32).reshape(56, 56, 3).permute(2, 0, 1) / 255
        torch.testing.assert_close(reward.preprocess(image)[0], (levels - mean) / std, rtol=0, atol=1e-5)
        smooth = reward.preprocess(image, "tensor")[0]
        assert (smooth - (levels - mean) / std).abs().mean() < 0.01  # Pillow's rounding, and overshoots cut off


def test_shards_and_imscores_names_do_as_well(reward: VQAScore, folder: Path, tmp_path: Path) -> None:
    weights = original_weights()
    names = sorted(weights)
    halves = {SHARDS.format(1): names[::2], SHARDS.format(2): names[1::2]}
    for file, part in halves.items():
        torch.save({name: weights[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    moved = (("vision_tower.vision_tower.", "v."), ("mm_projector.", "mm_projector."), ("", "t5."))
    renamed = {
        next(new + name.removeprefix(old) for old, new in moved if name.startswith(old)): weights[name]
        for name in names
    }
    save_file(renamed, tmp_path / "imscore.safetensors")
    images, prompts = formula_images(64), ["a red cat", "the sea"]
    scores = reward(images, prompts)
    for checkpoint in (tmp_path, tmp_path / "imscore.safetensors"):
        assert torch.equal(VQAScore(checkpoint=checkpoint, tokenizer=folder)(images, prompts), scores)


def test_the_question_is_the_users(reward: VQAScore, folder: Path) -> None:
    other = VQAScore(checkpoint=folder, tokenizer=folder, question="Is {prompt} in it?")
    assert not torch.equal(other(formula_images(64), ["a cat"] * 2), reward(formula_images(64), ["a cat"] * 2))
    assert ((scores := reward(formula_images(64), ["{}", "{0} {prompt}"])) > 0).all() and (scores < 1).all()


@pytest.fixture
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions are cut sooner, for speed."""
    monkeypatch.setattr("dipp_vqascore.reward.MOST_WORDS", 250)


@pytest.mark.usefixtures("few_words")
def test_what_every_port_promises(folder: Path) -> None:
    reward = VQAScore(checkpoint=folder, tokenizer=folder)
    check_promises(reward)
    check_central_differences(reward, step=3e-5)  # T5's attention divides by no root, and is steep with these weights


@pytest.mark.usefixtures("few_words")
def test_the_check_of_rewards_finds_nothing(folder: Path) -> None:
    """By tensors alone: Pillow's rounding is no fault of a gradient."""
    reward = VQAScore(checkpoint=folder, tokenizer=folder, preprocess="tensor")
    rows = check_reward(reward, "vqascore", seconds=0.001)
    assert [row for row in rows if row.status in ("failed", "warning")] == []


def test_wrong_options_get_a_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"without \{prompt\}; write \{prompt\}"):
        load_reward("vqascore", question="Is it good?", checkpoint=str(folder))
    with pytest.raises(RequestError, match="hf download zhiqiulin/clip-flant5-xl"):
        load_reward("vqascore", checkpoint="./nowhere/x.bin", tokenizer=str(folder))
    with pytest.raises(RequestError, match="hf download google/flan-t5-xl"):
        load_reward("vqascore", checkpoint=str(folder), tokenizer=str(folder / "pytorch_model.bin"))
    torch.save({"shared.weight": torch.zeros(3, 4)}, tmp_path / "other.bin")
    with pytest.raises(RequestError, match="does not fit: it has no 'vision"):
        load_reward("vqascore", checkpoint=str(tmp_path / "other.bin"), tokenizer=str(folder))


def test_bf16_halves_the_weights_and_keeps_the_scores(reward: VQAScore, folder: Path) -> None:
    half = VQAScore(checkpoint=folder, tokenizer=folder, precision="bf16")
    assert {weights.dtype for weights in half.network.parameters()} == {torch.bfloat16}
    scores = half(formula_images(64), ["a red cat", "the sea"])
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, reward(formula_images(64), ["a red cat", "the sea"]), rtol=0.5, atol=0)
