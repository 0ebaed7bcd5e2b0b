"""Ports of published rewards against their original packages' golden numbers and the libraries' own forward passes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as T
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from benchmarks.reward_parity.small_models import MODELS, PROMPTS, answers, small_pictures
from dipp_hps.reward import HPS
from dipp_imagereward.network import ImageRewardNetwork, Sizes, converted
from dipp_imagereward.reward import ImageReward
from dipp_toolkit import RequestError, load_reward
from dipp_toolkit.rewards.model_reward import ModelReward
from dipp_toolkit.rewards.open_clip_models import empty_clip, mend_mask
from dipp_toolkit.rewards.text_features import FEW, TextFeatures
from dipp_toolkit.rewards.weights import fill
from golden.make import formula_images, formula_weights
from ports import check_central_differences, check_golden, check_promises, golden_of

SMALL_BLIP = Sizes(
    image=64, patch=16, vision_width=32, vision_layers=2, vision_heads=2, text_width=24, text_layers=2, text_heads=2,
    vocabulary=100,
)  # fmt: skip


def test_imagereward_is_the_original() -> None:
    """Every tensor of the original checkpoint finds its place: the golden scores depend on all of them."""
    golden = golden_of("imagereward")
    network = ImageRewardNetwork(SMALL_BLIP).eval()
    state = converted(formula_weights(golden["shapes"]))
    network.load_state_dict(state)
    images, ids = formula_images(64).requires_grad_(True), torch.tensor(golden["ids"])
    check_golden(golden, network(images, ids, (ids != 0).long()), images)


def test_hps_is_the_original() -> None:
    golden = golden_of("hps")
    network: Any
    network, _ = empty_clip("ViT-H-14", golden["config"])
    fill(network, formula_weights(golden["shapes"]), Path("golden"))
    mend_mask(network)
    images, ids = formula_images(56).requires_grad_(True), torch.zeros(2, 77, dtype=torch.long)
    ids[:, :6] = torch.tensor(golden["ids"])
    image, text = (network.eval().encode_image(images, normalize=True), network.encode_text(ids, normalize=True))
    check_golden(golden, (image * text).sum(-1), images)


@pytest.mark.parametrize("name", MODELS)
def test_a_port_equals_the_library(name: str, tmp_path: Path) -> None:
    """Pictures of odd sizes, prompts with emoji, accents, 8,000 characters and none; by pictures and by tensors."""
    build, _ = MODELS[name]
    reward, (by_pictures, by_tensors) = build(tmp_path)
    count = len(PROMPTS)

    def ours_of(image: Tensor, prompt: str) -> Tensor:
        return reward(image, [prompt])

    ours, theirs = answers(ours_of, ours_of, count), answers(by_pictures, by_tensors, count)
    for index in range(count):
        for kind in ("score", "training"):
            torch.testing.assert_close(ours[f"{kind}/{index}"], theirs[f"{kind}/{index}"], rtol=0, atol=1e-5)
        ours_gradient, theirs_gradient = (item[f"gradient/{index}"].double().flatten() for item in (ours, theirs))
        assert F.cosine_similarity(ours_gradient, theirs_gradient, dim=0) > 1 - 1e-8


@pytest.fixture(scope="module")
def hps_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint in the published format."""
    path = tmp_path_factory.mktemp("hps") / "HPS_v2.1_compressed.pt"
    torch.save({"state_dict": formula_weights(golden_of("hps")["shapes"])}, path)
    return path


@pytest.fixture(scope="module")
def hps(hps_file: Path) -> HPS:
    return HPS(checkpoint=hps_file, architecture=golden_of("hps")["config"])


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert") / "vocab.txt"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cat", "##s", "on", ",", "cafe"]
    path.write_text("\n".join(words + [f"word{k}" for k in range(86)]) + "\n")
    return path


@pytest.fixture(scope="module")
def blip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blip") / "ImageReward.pt"
    torch.save(formula_weights(golden_of("imagereward")["shapes"]), path)
    return path


@pytest.fixture(scope="module")
def imagereward(blip_file: Path, vocabulary: Path) -> ImageReward:
    return ImageReward(checkpoint=blip_file, vocabulary=vocabulary, sizes=SMALL_BLIP)


def test_hps_prepares_pictures_as_the_package_does(hps: HPS) -> None:
    """Written down again: resize the tensor by 56 / longer side, pad with black, normalise; here for a wide picture."""
    image = F.interpolate(formula_images(64)[:1], size=(121, 301)).mul(255).round().div(255)
    small = T.resize(image, [round(121 * 56 / 301), 56], T.InterpolationMode.BICUBIC)
    padded = torch.zeros(1, 3, 56, 56)
    above = (56 - small.shape[-2]) // 2
    padded[..., above : above + small.shape[-2], :] = small
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    expected = (padded - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(hps.preprocess(image), expected, rtol=0, atol=1e-6)


def test_imagereward_prepares_pictures_as_the_package_does(imagereward: ImageReward) -> None:
    """Pillow's bicubic on 8 bits for pictures; tensors, antialiased, where there is a gradient."""
    image = small_pictures(2)[1]
    pixels = Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).numpy())
    width, height = pixels.size
    scale = 64 / min(width, height)
    size = (64, int(64 * height / width)) if width < height else (int(64 * width / height), 64)
    assert min(size) == 64 and abs(max(size) - scale * max(width, height)) <= 1
    small = pixels.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - 64) / 2), round((size[1] - 64) / 2)
    array = np.asarray(small.crop((left, top, left + 64, top + 64)), np.float32) / 255
    mean, std = np.float32([0.48145466, 0.4578275, 0.40821073]), np.float32([0.26862954, 0.26130258, 0.27577711])
    expected = torch.from_numpy((array - mean) / std).permute(2, 0, 1)[None]
    torch.testing.assert_close(imagereward.preprocess(image), expected, rtol=0, atol=1e-6)
    smooth = imagereward.preprocess(image.clone().requires_grad_(True))
    assert smooth.requires_grad
    assert 0 < (smooth - expected).abs().mean() < 0.01  # rounding, in units of the deviation; and overshoots cut off


def test_imagereward_reads_as_bert_does(imagereward: ImageReward) -> None:
    """Lower case, accents off, [CLS] ... [SEP], padded and cut to 35."""
    ids, mask = imagereward.read(["A red CATS, Café"])[0]
    assert ids[:8].tolist() == [2, 5, 6, 7, 8, 10, 11, 3]
    assert mask.tolist() == [1] * 8 + [0] * 27
    ids, mask = imagereward.read(["cat " * 2500])[0]
    assert len(ids) == 35 and ids[-1] == 3 and mask.all()


@pytest.mark.parametrize("name", ["hps", "imagereward"])
def test_what_every_port_promises(name: str, request: pytest.FixtureRequest) -> None:
    reward: ModelReward = request.getfixturevalue(name)
    check_promises(reward)
    check_central_differences(reward)


def test_bf16_is_close(hps: HPS, hps_file: Path) -> None:
    half = HPS(checkpoint=hps_file, architecture=golden_of("hps")["config"], precision="bf16")
    images, prompts = formula_images(64), ["a red cat", "the sea"]
    assert half(images, prompts).dtype == torch.float32
    torch.testing.assert_close(half(images, prompts), hps(images, prompts), rtol=0, atol=0.02)


def test_prompts_are_read_once(hps: HPS) -> None:
    hps.texts.forget()
    asked: list[str] = []
    read = hps.texts._encode

    def counting(prompts: Sequence[str]) -> Tensor:
        asked.extend(prompts)
        return read(prompts)

    hps.texts._encode = counting
    images = formula_images(64)
    for _ in range(3):
        hps(images, ["a red cat", "a red cat"])
    hps(images, ["a red cat", "the sea"])
    hps.texts._encode = read
    # Each once, in a batch that is always of one size.
    assert asked == ["a red cat"] * FEW + ["the sea"] * FEW


def test_new_prompts_cost_a_row_each_and_features_depend_on_no_neighbour(hps: HPS) -> None:
    rows: list[int] = []
    texts = TextFeatures(lambda prompts: (rows.append(len(prompts)), hps.read(prompts))[1], together=FEW)
    prompts = [f"cat {k}" for k in range(16)]
    steps = torch.cat([texts(prompts[start : start + 4]) for start in range(0, 16, 4)])
    assert sum(rows) == 16
    assert torch.equal(steps, TextFeatures(hps.read, together=FEW)(prompts[::-1]).flip(0))
    assert torch.equal(steps[5:6], TextFeatures(hps.read, together=FEW)(prompts[5:6]))


def test_the_memory_of_prompts_is_bounded(hps: HPS) -> None:
    known = TextFeatures(lambda prompts: torch.tensor([[float(prompt)] for prompt in prompts]), most=3)
    assert known([str(k) for k in range(5)]).flatten().tolist() == [0, 1, 2, 3, 4]
    assert len(known) == 3
    assert known(["1", "4"]).flatten().tolist() == [1, 4]


def test_pillow_has_no_gradient(hps_file: Path) -> None:
    reward = HPS(checkpoint=hps_file, architecture=golden_of("hps")["config"], preprocess="pillow")
    with pytest.raises(RequestError, match="preprocess=pillow rounds to 8 bits and has no gradient"):
        reward(formula_images(64).requires_grad_(True), ["", ""])


class Malice:
    def __reduce__(self) -> Any:
        return print, ("this must never be printed",)


def damaged(path: Path, kind: str, good: Path) -> Path:
    """A checkpoint with something wrong."""
    if kind == "malicious":
        path.write_bytes(pickle.dumps({"state_dict": Malice()}))
    elif kind == "malicious zip":
        torch.save({"state_dict": Malice()}, path)
    elif kind == "cut off":
        path.write_bytes(good.read_bytes()[:5000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "no tensors":
        torch.save({"state_dict": {"epoch": 3}}, path)
    elif kind == "a tensor missing":
        state = torch.load(good, weights_only=True)
        (state.get("state_dict") or state).popitem()
        torch.save(state, path)
    else:
        state = torch.load(good, weights_only=True)
        inner = state.get("state_dict") or state
        inner[next(iter(inner))] = torch.zeros(3, 5, 7)
        torch.save(state, path)
    return path


DAMAGES = {
    "malicious": "is refused",
    "malicious zip": "is refused",
    "cut off": "damaged",
    "empty": "damaged",
    "text": "damaged",
    "list": "holds a list; expected named tensors",
    "no tensors": "holds no tensors",
    "a tensor missing": "tensors are missing, such as",
    "another shape": "has the shape (3, 5, 7); expected",
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_checkpoints_get_a_sentence(
    kind: str, tmp_path: Path, hps_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = damaged(tmp_path / "HPS_v2.1_compressed.pt", kind, hps_file)
    with pytest.raises(RequestError) as caught:
        HPS(checkpoint=path, architecture=golden_of("hps")["config"])
    assert DAMAGES[kind] in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "this must never be printed" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"version": "v3"}, "comes in the versions v2.0 and v2.1, not in v3"),
        ({"checkpoint": "./HPS_v2.1_compresed.pt"}, "Did you mean HPS_v2.1_compressed.pt?"),
        ({"checkpoint": "./nowhere/x.pt"}, "hf download xswu/HPSv2 HPS_v2.1_compressed.pt"),
        ({"checkpoint": "someone/else"}, "--set reward.hps.checkpoint=FOLDER"),
        ({}, "cannot be fetched"),
        ({"precision": "fp8"}, "runs in fp32 or bf16, not in fp8"),
        ({"preprocess": "magic"}, "by auto, pillow or tensor, not by 'magic'"),
        ({"batch": -1}, "expected 0 or more"),
        ({"verson": "v2.0"}, "Did you mean 'version'?"),
    ],
)
def test_wrong_options_get_a_sentence(
    options: dict[str, Any], sentence: str, hps_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hps_file.parent)
    known = {"architecture": golden_of("hps")["config"]}
    if set(options) & {"precision", "preprocess", "batch"}:
        known["checkpoint"] = hps_file
    with pytest.raises(RequestError) as caught:
        load_reward("hps", **known, **options)
    assert sentence in str(caught.value)


def test_imagereward_takes_text_sizes_from_the_originals_file(
    tmp_path: Path, blip_file: Path, vocabulary: Path, imagereward: ImageReward
) -> None:
    config = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 100}
    (tmp_path / "med_config.json").write_text(json.dumps(config))
    sizes = replace(SMALL_BLIP, text_width=768, text_layers=12)
    reward = ImageReward(
        checkpoint=blip_file, vocabulary=vocabulary, med_config=tmp_path / "med_config.json", sizes=sizes
    )
    images = formula_images(64)
    assert torch.equal(reward(images, ["a cat", "cats"]), imagereward(images, ["a cat", "cats"]))


def test_scores_of_imagereward_are_standardised(imagereward: ImageReward) -> None:
    """By the authors' mean and deviation, as the package does."""
    images, texts = formula_images(64), imagereward.read(["a cat", "cats"])
    raw = imagereward.network(imagereward.preprocess(images), texts[:, 0], texts[:, 1])
    expected = (raw - 0.16717362830052426) / 1.0333394966054072
    torch.testing.assert_close(imagereward(images, ["a cat", "cats"]), expected)
