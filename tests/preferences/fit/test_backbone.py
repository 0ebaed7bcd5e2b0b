"""A backbone is a published name, a folder in transformers' layout, or a reward's; what it is fed is in its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dipp_emoji import WEIGHTS
from dipp_emoji.rewards import to_pixels
from dipp_toolkit.errors import RequestError
from dipp_toolkit.preferences.fit.backbone import find_backbone, load_backbone, preprocess_from, read, see
from dipp_toolkit.preferences.fit.run import fit_reward
from dipp_toolkit.preferences.fit.trainer import FitSettings
from dipp_toolkit.rewards.loading import load_reward
from warm_votes import agreement_with_warmth, painted, warm_votes

CLIP = WEIGHTS / "clip"
CROPPED = {"do_center_crop": True, "resample": 3}


def test_the_embedded_clip_is_fed_by_its_files_as_its_reward_feeds_it() -> None:
    images = painted(2).flatten(0, 1)
    backbone = load_backbone(find_backbone(str(CLIP)))
    torch.testing.assert_close(backbone.preprocess(images, "tensor"), to_pixels(images))
    torch.testing.assert_close(
        backbone.preprocess(images[:1, :, :40, :40], "tensor"), to_pixels(images[:1, :, :40, :40])
    )
    prompts = ["a cat"] * len(images)
    _, embedding = see(backbone.network, backbone.kind, to_pixels(images))
    expected = load_reward("emoji-clip")(images, prompts)
    cosines = 100 * (embedding * read(backbone.network, backbone.kind, backbone.ids(prompts))).sum(1)
    torch.testing.assert_close(cosines, expected, rtol=1e-4, atol=1e-3)


def test_a_reward_names_the_folder_of_its_weights() -> None:
    assert find_backbone("emoji-clip").folder == CLIP


@pytest.mark.parametrize(
    ("config", "size", "fit", "interpolation"),
    [
        ({"size": {"shortest_edge": 224}, "crop_size": {"height": 224}, **CROPPED}, 224, "crop", "bicubic"),
        ({"size": 224, "crop_size": 224, **CROPPED}, 224, "crop", "bicubic"),
        ({"size": {"height": 384, "width": 384}, "resample": 2}, 384, "squash", "bilinear"),
    ],
)
def test_published_preprocessing_is_understood(config, size, fit, interpolation, tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3, **config}))
    found = preprocess_from(path)
    assert (found.size, found.fit, found.interpolation) == (size, fit, interpolation)
    assert (found.mean, found.std) == ((0.5,) * 3, (0.25,) * 3)


def test_other_preprocessing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True}))
    with pytest.raises(RequestError, match="not known here"):
        preprocess_from(path)


def test_what_is_no_backbone_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no backbone 'klip'; expected clip, siglip, or a folder"):
        find_backbone("klip")
    with pytest.raises(RequestError, match="no backbone folder"):
        find_backbone(str(tmp_path / "nowhere"))
    with pytest.raises(RequestError, match=r"no config.json and no preprocessor_config.json and no model"):
        find_backbone(str(tmp_path))
    with pytest.raises(RequestError, match="do not lie in transformers' layout"):
        find_backbone("sharpness")
    other = shutil.copytree(CLIP, tmp_path / "bert")
    (other / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(RequestError, match="a network of the type 'bert'"):
        find_backbone(str(other))


@pytest.fixture
def tiny_siglip(tmp_path: Path) -> Path:
    from transformers import SiglipConfig, SiglipModel

    folder = tmp_path / "siglip"
    folder.mkdir()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 253, "max_position_embeddings": 12, "pad_token_id": 0, "eos_token_id": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = SiglipConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8})
        SiglipModel(config).save_pretrained(folder)
    for path in CLIP.glob("tokenizer*"):
        shutil.copy(path, folder)
    mean = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3, "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(mean))
    return folder


def test_a_siglip_is_fitted_on_as_well(tiny_siglip: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    fit_reward(warm_votes(10), tmp_path / "reward", backbone=str(tiny_siglip), settings=FitSettings(steps=60))
    assert agreement_with_warmth(load_reward(str(tmp_path / "reward"))) >= 0.85
