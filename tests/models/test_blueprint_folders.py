"""Blueprints: the published sizes, schedules and shapes without a weight, and pipeline folders with random ones."""

from __future__ import annotations

import gc
import json
import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import dipp_hps.reward as hps
from dipp_toolkit.diffusion.schedules import FlowMatching, VariancePreserving, schedule_from_config
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.blueprints import PipelineBlueprint, RewardBlueprint, find_blueprint, parameter_count
from dipp_toolkit.models.components import load_component
from dipp_toolkit.models.reference import latent_shape_of
from dipp_toolkit.models.tiny_pipelines import drawn_from
from dipp_toolkit.planning.dry_run import dry, faked
from dipp_toolkit.registry import get_registry

VAE, CLIP_L, CLIP_G, T5 = 83.65e6, 123.06e6, 694.66e6, 4.762e9
PUBLISHED: dict[str, dict[str, float]] = {
    "pixart-alpha": {"transformer": 0.611e9, "vae": VAE, "text_encoder": T5},
    "sd15": {"unet": 859.5e6, "vae": VAE, "text_encoder": CLIP_L},
    "sdxl": {"unet": 2.567e9, "vae": VAE, "text_encoder": CLIP_L, "text_encoder_2": CLIP_G},
    "sd-turbo": {"unet": 865.9e6, "vae": VAE, "text_encoder": 340.4e6},
    "sd3": {
        "transformer": 2.03e9, "vae": 83.82e6, "text_encoder": 123.65e6, "text_encoder_2": CLIP_G,
        "text_encoder_3": T5,
    },
    "flux": {"transformer": 11.9e9, "vae": 83.82e6, "text_encoder": CLIP_L, "text_encoder_2": T5},
}  # fmt: skip
"""Parameters of the published networks."""

SAME = {"pixart-onestep": "pixart-alpha", "sd15-onestep": "sd15", "sdxl-dmd2": "sdxl", "flux-onestep": "flux"}
"""Generators of the architecture of a published reference."""

LATENTS = {
    "pixart-alpha": (4, 64, 64),
    "sd15": (4, 64, 64),
    "sdxl": (4, 128, 128),
    "sd-turbo": (4, 64, 64),
    "sd3": (16, 128, 128),
    "flux": (16, 128, 128),
}
SHIFTS = {"sd3": 3.0, "flux": math.exp(1.15)}
"""Of flow matching; FLUX.1-dev's depends on the number of tokens, 4096 of them at its own size."""

SIGNAL_LEFT = {"pixart-alpha": 4.04e-5, "sd15": 4.66e-3, "sdxl": 4.66e-3, "sd-turbo": 4.66e-3}
"""The last cumulative product of alphas: of linear betas up to 0.02, and of scaled linear ones up to 0.012."""

REWARDS = {"hps": 986.1e6, "imagereward": 446.2e6, "aesthetic": 428.5e6}


def pipeline(name: str) -> PipelineBlueprint:
    found = find_blueprint(name)
    assert isinstance(found, PipelineBlueprint)
    return found


def reward(name: str) -> RewardBlueprint:
    found = find_blueprint(name)
    assert isinstance(found, RewardBlueprint)
    return found


def networks(blueprint: PipelineBlueprint) -> list[str]:
    """Components with a configuration; the scheduler's has another name."""
    return sorted(path.parent.name for path in blueprint.folder.glob("*/config.json"))


def test_all_published_models_are_registered() -> None:
    assert {*PUBLISHED, *SAME, *REWARDS} <= set(get_registry().entries["blueprint"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_have_the_published_sizes(name: str) -> None:
    blueprint = pipeline(name)
    assert networks(blueprint) == sorted(PUBLISHED[name])
    for component, expected in PUBLISHED[name].items():
        with torch.device("meta"):
            network = blueprint.build(component)
        assert all(parameter.is_meta for parameter in network.parameters())
        assert parameter_count(network) == pytest.approx(expected, rel=0.01), component


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_can_be_built_without_memory(name: str) -> None:
    blueprint = pipeline(name)
    for component in networks(blueprint):
        with FakeTensorMode():
            assert parameter_count(blueprint.build(component)) > 0


@pytest.mark.parametrize(("name", "base"), SAME.items())
def test_a_generator_has_its_base_s_blueprint(name: str, base: str) -> None:
    assert pipeline(name).folder == pipeline(base).folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_folders_hold_configurations_alone(name: str) -> None:
    blueprint = pipeline(name)
    files = [path for path in blueprint.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json"}
    index = json.loads((blueprint.folder / "model_index.json").read_text())
    assert {*networks(blueprint), "scheduler", "tokenizer"} <= set(index)
    assert index["scheduler"][1] == blueprint.scheduler_config["_class_name"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_encoders_latents_and_schedules_are_the_published_ones(name: str) -> None:
    blueprint = pipeline(name)
    assert list(blueprint.text_encoders) == [network for network in networks(blueprint) if network.startswith("text")]
    latent = latent_shape_of(blueprint.folder, blueprint.family)
    assert tuple(latent) == LATENTS[name]
    schedule = schedule_from_config(blueprint.scheduler_config, latent)
    if name in SHIFTS:
        assert isinstance(schedule, FlowMatching)
        assert schedule.shift == pytest.approx(SHIFTS[name])
        return
    assert isinstance(schedule, VariancePreserving)
    assert len(schedule.alphas_cumprod) == 1000
    assert float(schedule.alphas_cumprod[-1]) == pytest.approx(SIGNAL_LEFT[name], rel=0.01)


@pytest.mark.parametrize("name", REWARDS)
def test_rewards_score_images_of_any_size_without_memory(name: str) -> None:
    with torch.device("meta"):
        network = reward(name).build().eval()
    assert parameter_count(network) == pytest.approx(REWARDS[name], rel=0.01)
    with dry():
        faked(network)
        images = torch.rand(2, 3, 300, 260, requires_grad=True)
        scores = network(images)
        assert scores.shape == (2,)
        (gradient,) = torch.autograd.grad(scores.sum(), images)
        assert gradient.shape == images.shape


def test_a_small_hps_scores_what_images_show(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
    monkeypatch.setattr(hps, "TEXT", hps.TEXT | small)
    monkeypatch.setattr(hps, "VISION", hps.VISION | small)
    network = hps.HPSv2Network().eval()
    grey, noisy = torch.full((1, 3, 64, 64), 0.5), torch.rand(1, 3, 64, 64, requires_grad=True)

    def score(images: Tensor) -> Tensor:
        return network(images)

    assert score(grey).abs().item() <= 1
    larger = torch.full((1, 3, 96, 320), 0.5)
    assert torch.allclose(score(grey), score(larger), atol=1e-4)
    assert not torch.allclose(score(grey), score(noisy), atol=1e-4)
    (gradient,) = torch.autograd.grad(score(noisy).sum(), noisy)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


TRANSFORMER = {
    "_class_name": "PixArtTransformer2DModel", "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4,
    "out_channels": 8, "num_layers": 1, "cross_attention_dim": 16, "caption_channels": 16, "sample_size": 4,
    "use_additional_conditions": False,
}  # fmt: skip
AUTOENCODER = {
    "_class_name": "AutoencoderKL", "block_out_channels": [8], "norm_num_groups": 4, "sample_size": 8,
    "down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"],
}  # fmt: skip
FILES: dict[str, dict[str, Any]] = {
    "model_index.json": {
        "_class_name": "PixArtAlphaPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "PixArtTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    },
    "scheduler/scheduler_config.json": {"_class_name": "DDPMScheduler", "beta_schedule": "linear"},
    "text_encoder/config.json": {
        "model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 20,
    },
    "transformer/config.json": TRANSFORMER,
    "vae/config.json": AUTOENCODER,
}  # fmt: skip


@pytest.fixture
def tiny(tmp_path: Path) -> PipelineBlueprint:
    folder = tmp_path / "published"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return PipelineBlueprint(folder, "somebody/tiny")


def weights(folder: Path, component: str) -> dict[str, Tensor]:
    return load_component(folder, component).state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_written_pipeline_has_every_configuration_and_the_wanted_weights(
    tiny: PipelineBlueprint, tmp_path: Path
) -> None:
    folder = tiny.write(tmp_path / "full", ["transformer", "vae", "text_encoder"], seed=3)
    for component in ("transformer", "vae", "text_encoder"):
        with drawn_from(3):
            expected = tiny.build(component).state_dict()
        assert same(weights(folder, component), expected)
    part = tiny.write(tmp_path / "part", ["vae"], seed=3)
    assert {path.relative_to(part).as_posix() for path in part.rglob("*.json")} == set(FILES)
    assert [path.parent.name for path in part.rglob("*.safetensors")] == ["vae"]
    assert same(weights(part, "vae"), weights(folder, "vae"))
    with pytest.raises(RequestError, match=r"no \.safetensors file"):
        load_component(part, "transformer")
    other = tiny.write(tmp_path / "other", ["vae"], seed=4)
    assert not same(weights(other, "vae"), weights(folder, "vae"))


def test_weights_are_written_in_the_wanted_type(tiny: PipelineBlueprint, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = tiny.write(tmp_path / "half", ["vae", "text_encoder"], dtype=torch.bfloat16)
    for path in folder.rglob("*.safetensors"):
        assert {item.dtype for item in load_file(path).values()} == {torch.bfloat16}


def test_one_component_is_in_memory_at_a_time(
    tiny: PipelineBlueprint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, made = PipelineBlueprint.build, list[weakref.ref[nn.Parameter]]()

    def watched(self: PipelineBlueprint, component: str) -> nn.Module:
        assert not any(item() is not None for item in made)
        network = build(self, component)
        made.extend(weakref.ref(parameter) for parameter in network.parameters())
        return network

    monkeypatch.setattr(PipelineBlueprint, "build", watched)
    gc.disable()  # a cycle that waits for the collector would hold gigabytes of a full-size network
    try:
        tiny.write(tmp_path / "full", ["transformer", "vae", "text_encoder"])
    finally:
        gc.enable()
    assert made


def test_a_failure_leaves_nothing_behind(
    tiny: PipelineBlueprint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(tmp_path.iterdir())
    with pytest.raises(RequestError, match="no component 'unet'"):
        tiny.write(tmp_path / "full", ["vae", "unet"])
    assert set(tmp_path.iterdir()) == before

    def interrupted(self: PipelineBlueprint, component: str) -> nn.Module:
        raise KeyboardInterrupt

    monkeypatch.setattr(PipelineBlueprint, "build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.write(tmp_path / "full", ["vae"])
    assert set(tmp_path.iterdir()) == before


def test_a_folder_that_exists_is_not_touched(tiny: PipelineBlueprint, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(RequestError, match="already exists"):
        tiny.write(tmp_path / "mine", ["vae"])
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("component", ["unet", "scheduler", "tokenizer"])
def test_what_is_no_network_is_refused(tiny: PipelineBlueprint, component: str) -> None:
    with pytest.raises(RequestError, match=component):
        tiny.build(component)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(RequestError, match="sd15"):
        find_blueprint("sd-15")
