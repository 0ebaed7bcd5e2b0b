"""LoRA files from the command line, from YAML and from Python: generators draw what stock pipelines draw with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, LCMScheduler
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor

import lora_files
from dipp_cli.actions.generate import GenerateRequest, make_images
from dipp_cli.app import main
from dipp_toolkit import TrainConfig, load_generator
from dipp_toolkit.errors import CheckpointError, RequestError
from dipp_toolkit.experiments.bench.entries import parse_entries
from dipp_toolkit.models.generator_options import parsed_options
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.start_weights import source as sources
from dipp_toolkit.planning.costs import pipeline_blueprint
from dipp_toolkit.planning.estimate import make_plan, shares_weights
from dipp_toolkit.training.run import train
from dipp_toolkit.training.setup.origins import start_origins
from lora_files import added, peft_folder, random_pairs, twins_below, write
from tiny import PROMPTS

BLUE = "def blue(images, prompts):\n    return images[:, 2].mean((1, 2))\n"
UNET = "diffusion_pytorch_model.safetensors"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
KOHYA = r"^(?!add_embedding)"


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return twins_below(tmp_path_factory.mktemp("twins"))


@pytest.fixture
def world(twins: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a pipeline `base`, a LoRA file, prompts and a reward."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIPP_CACHE", "cache")
    Path("base").symlink_to(twins("StableDiffusionPipeline"))
    write(Path("lora.safetensors"), lora_files.kohya, base_pairs(), 3.0, "unet")
    Path("prompts.txt").write_text("\n".join(PROMPTS))
    Path("blue.py").write_text(BLUE)
    return tmp_path


def base_pairs(seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    return random_pairs(DiffusionPipeline.from_pretrained("base").unet, 2, "attn", seed)


def base_weights() -> dict[str, Tensor]:
    return load_file(f"base/unet/{UNET}")


def assert_near(first: dict[str, Tensor], second: dict[str, Tensor], limit: float = 1e-6) -> None:
    assert max(float((value - second[name]).abs().max()) for name, value in first.items()) <= limit


def stock_images(folder: Path, lora: Path, scale: float, noise: Tensor) -> Tensor:
    """The stock pipeline's own call in one step, with a LoRA loaded as it is documented for its class."""
    pipeline: Any = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    name, call = type(pipeline).__name__, {"num_inference_steps": 1, "guidance_scale": 1.0}
    if "PixArt" in name:
        model = PeftModel.from_pretrained(pipeline.transformer, str(lora))
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                layer.set_scale("default", scale)
        pipeline.transformer = model.merge_and_unload()
        call |= {"use_resolution_binning": False}
    else:
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="lora")
        pipeline.set_adapters(["lora"], [scale])
    if "StableDiffusion3" not in name and "Flux" not in name:
        pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
        call = {**call, "timesteps": [399]}
        del call["num_inference_steps"]
    if "Flux" in name:
        noise = pipeline._pack_latents(noise, *noise.shape)
        call |= {"height": 16, "width": 16, "guidance_scale": 3.5}
    return pipeline(list(PROMPTS), latents=noise, output_type="pt", **call).images


def drawn(folder: Path, options: dict[str, Any]) -> Any:
    """What `dipp generate` draws, from noise 5."""
    return make_images(
        GenerateRequest(generator=str(folder), prompt=list(PROMPTS), seed=5, device="cpu", options=options)
    )


@pytest.mark.first_case
@pytest.mark.parametrize(
    ("name", "layout", "pattern"),
    [
        ("PixArtAlphaPipeline", None, "attn"),
        ("StableDiffusionPipeline", lora_files.kohya, KOHYA),
        ("StableDiffusionXLPipeline", lora_files.kohya_sgm, KOHYA),
        ("StableDiffusion3Pipeline", lora_files.diffusers, "."),
        ("FluxPipeline", lora_files.flux_kohya, r"^transformer_blocks"),
    ],
)
def test_a_generator_draws_what_the_stock_pipeline_draws_with_the_lora(
    twins: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, layout: Any, pattern: str
) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    folder, flow = twins(name), name in ("StableDiffusion3Pipeline", "FluxPipeline")
    component = "unet" if name in ("StableDiffusionPipeline", "StableDiffusionXLPipeline") else "transformer"
    pairs = random_pairs(getattr(DiffusionPipeline.from_pretrained(folder), component), 4, pattern)
    if layout is lora_files.flux_kohya:
        pairs = lora_files.shared_downs(pairs)
    if layout is None:
        path = peft_folder(tmp_path / "adapter", pairs, 6.0)
    else:
        path = write(tmp_path / "lora.safetensors", layout, pairs, 6.0, component)
    said = {"lora": f"{path}=0.125", "readout": 1.0 if flow else "399/999", "input_scale": "unit"}
    options = parsed_options(said, "A generator")
    _, ours, settings = make_images(
        GenerateRequest(generator=str(folder), prompt=list(PROMPTS), seed=5, device="cpu", options=options)
    )
    assert settings["lora"] == (f"{path}=0.125",)
    shape = load_generator(str(folder)).latent_shape
    theirs = stock_images(folder, path, 0.125, fixed_noise(len(PROMPTS), shape, 5))
    assert (ours - theirs).abs().max() <= 1e-4
    del options["lora"]
    _, plain, _ = drawn(folder, options)
    assert (plain - theirs).abs().max() > 1e-3


def test_one_text_and_a_list_mean_the_same_from_everywhere(world: Path) -> None:
    save_file(lora_files.kohya(base_pairs(1), 5.0, "unet")[0], "second.safetensors")
    both = ["./lora.safetensors=0.5", "./second.safetensors"]
    expected = added(added(base_weights(), base_pairs(), 0.75), base_pairs(1), 2.5)
    Path("settings.yaml").write_text("lora:\n- ./lora.safetensors=0.5\n- ./second.safetensors\n")
    for config in (TrainConfig(lora=both), TrainConfig(lora=", ".join(both))):  # type: ignore[arg-type]
        assert config.lora == tuple(both)
    for given in (both, tuple(both)):
        assert_near(expected, dict(load_generator("./base", lora=given).network.state_dict()))
    single: Any = load_generator("./base", lora="./lora.safetensors=0.5")
    assert_near(added(base_weights(), base_pairs(), 0.75), dict(single.network.state_dict()))


def test_a_lora_goes_on_top_of_other_weights(world: Path) -> None:
    other = {name: weight + 0.01 for name, weight in base_weights().items()}
    save_file(other, "other.safetensors")
    made: Any = load_generator("./base", weights="./other.safetensors", lora="./lora.safetensors=2")
    assert_near(added(other, base_pairs(), 3.0), dict(made.network.state_dict()))


def test_a_hub_file_comes_through_the_hubs_cache(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(hub: str, inside: str) -> Path:
        asked.append((hub, inside))
        return world / "lora.safetensors"

    monkeypatch.setattr(sources, "hub_file", fetch)
    for address, inside in (
        ("Luo-Yihong/TDM_sd3_lora=0.125", "pytorch_lora_weights.safetensors"),
        ("ByteDance/Hyper-SD:Hyper-SDXL-1step-lora.safetensors=0.125", "Hyper-SDXL-1step-lora.safetensors"),
    ):
        made: Any = load_generator("./base", lora=address)
        assert {item for _, item in asked} == {inside}
        asked.clear()
        assert_near(added(base_weights(), base_pairs(), 0.125 * 1.5), dict(made.network.state_dict()))


@pytest.mark.first_case
@pytest.mark.parametrize(
    ("command", "mode", "how"), [(["train", "--generator", "./base"], "lora", "words"), (["distill"], "full", "yaml")]
)
def test_a_run_starts_from_the_sum(world: Path, command: list[str], mode: str, how: str) -> None:
    Path("settings.yaml").write_text("lora: ./lora.safetensors=0.5\nreadout: 0.6\n")
    said = ["--set", "lora=./lora.safetensors=0.5", "--set", "readout=0.6"]
    words = [*command, "--reference", "./base", "--prompts", "prompts.txt", "--quiet", "--steps", "1", "--out", "run"]
    words += ["--set", "learning_rate=1e-9", "--mode", mode, "--set", "lora_rank=2", "--set", "eval_count=1"]
    assert main([*words, *(said if how == "words" else ["--config", "settings.yaml"]), "--batch-size", "1"]) == 0
    assert_near(added(base_weights(), base_pairs(), 0.75), load_file(f"run/final/unet/{UNET}"), 1e-4)
    assert "lora:\n- ./lora.safetensors=0.5" in Path("run/config.yaml").read_text()


def test_generate_bench_and_plan_take_it(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--generator", "./base", "--prompt", "a cat", "--out", "a", "--json", "--set", "readout=0.6"]
    assert main([*words, "--set", "lora=./lora.safetensors=0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["lora"] == ["./lora.safetensors=0.5"]
    (one,) = parse_entries("new=./base", {"new": {"lora": "./lora.safetensors=0.5", "readout": 0.6}})
    made = one.source(torch.device("cpu")).generator
    assert made is not None
    assert_near(added(base_weights(), base_pairs(), 0.75), dict(made.network.state_dict()))
    assert main(["plan", "--generator", "./base", "--reference", "./base", "--set", "lora=./lora.safetensors"]) == 0


def test_a_published_references_name_is_the_pipeline_of_a_lora(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = "Luo-Yihong/TDM_sd3_lora:pytorch_lora_weights.safetensors=0.125"
    words = ["train", "--generator", "sd3", "--prompts", "prompts.txt", "--dry-run", "--set", f"lora={address}"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "pytorch_lora_weights.safetensors of huggingface.co/Luo-Yihong/TDM_sd3_lora" in printed
    assert "stabilityai/stable-diffusion-3-medium-diffusers" in printed


def test_a_dry_run_looks_at_the_file_and_writes_nothing(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--generator", "./base", "--reference", "./base", "--prompts", "prompts.txt", "--dry-run"]
    assert main([*words, "--set", "lora=./lora.safetensors"]) == 0
    tensors = load_file("lora.safetensors")
    tensors[next(key for key in tensors if key.endswith("up.weight"))] = torch.ones(3, 2)
    save_file(tensors, "wrong.safetensors")
    capsys.readouterr()
    assert main([*words, "--set", "lora=./wrong.safetensors"]) == 2
    assert "does not fit UNet2DConditionModel: of the" in capsys.readouterr().err
    assert not Path("cache/converted").exists()
    for wrong, says in (
        ("./lora.safetensors=much", "has the scale 'much'; expected a number"),
        ("./lara.safetensors", "Did you mean lora.safetensors?"),
        ("https://huggingface.co/a/b/resolve/main/c.safetensors", "write a/b:c.safetensors"),
    ):
        assert main([*words, "--set", f"lora={wrong}"]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.first_case
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_another_file_behind_the_same_name_is_noticed_on_resume(world: Path, mode: str) -> None:
    settings: dict[str, Any] = {
        "generator": "./base", "reference": "./base", "lora": "./lora.safetensors", "prompts": "prompts.txt",
        "steps": 1, "batch_size": 1, "eval_count": 1, "reference_steps": 1, "mode": mode, "lora_rank": 2, "out": "run",
        "device": "cpu", "rewards": {"./blue.py:blue": 1.0},
    }  # fmt: skip
    train(TrainConfig(**settings))
    again = settings | {"resume": True, "steps": 2}
    write(Path("lora.safetensors"), lora_files.kohya, base_pairs(1), 3.0, "unet")
    if mode == "full":  # the weights are in the checkpoint
        told = train(TrainConfig(**again)).summary["warnings"]
        assert any("the generator's start weights (sha256 " in item for item in told)
        return
    with pytest.raises(CheckpointError, match=r"under the same name: the generator's start weights \(sha256 "):
        train(TrainConfig(**again))
    write(Path("lora.safetensors"), lora_files.kohya, base_pairs(), 3.0, "unet")
    assert train(TrainConfig(**again)).summary["steps"] == 2


def test_a_lora_is_no_option_of_a_generator_without_files(world: Path) -> None:
    with pytest.raises(RequestError, match="lora"):
        load_generator("emoji-onestep", lora="./lora.safetensors")


def test_a_plan_counts_the_sum_beside_the_reference(world: Path) -> None:
    config = TrainConfig(generator="./base", reference="./base", mode="lora", lora_rank=2)
    assert "generator" not in make_plan(config).resident
    fused = make_plan(config.model_copy(update={"lora": ("./lora.safetensors",)}))
    assert fused.resident["generator"] == fused.resident["reference"]


@pytest.mark.parametrize(
    ("generator", "reference", "own"),
    [("sd15-onestep", "sd15", False), ("hyper-sdxl", "sdxl", True), ("dipp-sdxl", "sdxl", True)],
)
def test_a_plan_knows_which_published_generators_share_their_references_weights(
    generator: str, reference: str, own: bool
) -> None:
    blueprints = pipeline_blueprint(generator, "generator"), pipeline_blueprint(reference)
    config = TrainConfig(generator=generator, reference=reference)
    assert shares_weights(config, *blueprints) != own
    assert not shares_weights(config.model_copy(update={"lora": ("a/b:c.safetensors",)}), *blueprints)


def test_a_loras_repository_stands_first_in_the_model_card(world: Path) -> None:
    config = TrainConfig(generator="sdxl", reference="sdxl", lora=("ByteDance/Hyper-SD:one.safetensors=0.5",))
    assert [origin.hub for origin in start_origins(config)] == ["ByteDance/Hyper-SD", SDXL]
