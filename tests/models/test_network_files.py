"""Networks from single files, folders and the hub's cache, over the pipeline that they were made for."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from bombs import write_bomb
from dipp_cli.app import main
from dipp_toolkit import load_generator, load_reference
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.bench.entries import parse_entries
from dipp_toolkit.models.files.fetching import without_fetching
from dipp_toolkit.models.files.folders import quiet_loading
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.generator_options import generator_options
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.start_weights import source as sources
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.training.setup.resolve import resolve

PROMPTS = ["a red fox on blue", "birthday cake"]
WEIGHTS = "diffusion_pytorch_model.safetensors"
FILE = "Hyper-1step-Unet.safetensors"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base pipeline, and another network of its kind as its author would have it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    write_twin("StableDiffusionPipeline", tmp_path / "base")
    write_twin("StableDiffusionPipeline", tmp_path / "tuned", seed=7)
    for part in ("text_encoder", "vae"):
        shutil.copytree(tmp_path / "base" / part, tmp_path / "tuned" / part, dirs_exist_ok=True)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    shutil.copy(tmp_path / "tuned" / "unet" / WEIGHTS, tmp_path / FILE)
    return tmp_path


def tuned_state() -> dict[str, Tensor]:
    return load_file(FILE)


def plain(state: dict[str, Tensor]) -> Path:
    return Path(FILE)


def pickled(state: dict[str, Tensor]) -> Path:
    torch.save(state, "unet_fp16.bin")
    return Path("unet_fp16.bin")


def wrapped(state: dict[str, Tensor]) -> Path:
    average = {f"module.{name}": value + 1 for name, value in state.items()}
    content = {
        "state_dict": {f"module.{name}": value for name, value in state.items()},
        "state_dict_ema": average,
        "step": 3,
    }
    torch.save(content, "checkpoint.pt")
    return Path("checkpoint.pt")


def averaged(state: dict[str, Tensor]) -> Path:
    torch.save({"ema": {"model": state}, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, "ema.pt")
    return Path("ema.pt")


def prefixed(state: dict[str, Tensor]) -> Path:
    other = {"text_encoder.weight": torch.ones(2), "vae.conv_in.weight": torch.ones(2)}
    save_file({f"unet.{name}": value for name, value in state.items()} | other, "all.safetensors")
    return Path("all.safetensors")


def original(state: dict[str, Tensor]) -> Path:
    save_file({f"model.diffusion_model.{name}": item for name, item in ldm_names(state).items()}, "ldm.safetensors")
    return Path("ldm.safetensors")


def original_bare(state: dict[str, Tensor]) -> Path:
    save_file(ldm_names(state), "bare.safetensors")
    return Path("bare.safetensors")


def whole_checkpoint(state: dict[str, Tensor]) -> Path:
    network = {f"model.diffusion_model.{name}": item for name, item in ldm_names(state).items()}
    other = {"first_stage_model.encoder.conv_in.weight": torch.ones(2), "cond_stage_model.x": torch.ones(2)}
    save_file(network | other, "whole.safetensors")
    return Path("whole.safetensors")


def bare_folder(state: dict[str, Tensor]) -> Path:
    shutil.copytree("tuned/unet", "bare")
    return Path("bare")


def whole_pipeline(state: dict[str, Tensor]) -> Path:
    return Path("tuned")


def pickled_folder(state: dict[str, Tensor]) -> Path:
    Path("pickled").mkdir()
    shutil.copy("tuned/unet/config.json", "pickled")
    torch.save(state, "pickled/diffusion_pytorch_model.bin")
    return Path("pickled")


def ldm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The twin's UNet under the names of the code that Stable Diffusion was published with."""
    blocks = [("input_blocks.1", "down_blocks.0", 0), ("input_blocks.3", "down_blocks.1", 0)]
    blocks += [
        (f"output_blocks.{2 * block + layer}", f"up_blocks.{block}", layer) for block in range(2) for layer in range(2)
    ]
    names = {"conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "conv_out": "out.2"}
    names |= {"time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0"}
    names |= {"down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op"}
    for ldm, ours, layer in blocks:
        names |= {f"{ours}.resnets.{layer}": f"{ldm}.0", f"{ours}.attentions.{layer}": f"{ldm}.1"}
    for block in range(2):
        attention = any(name.startswith(f"up_blocks.{block}.attentions") for name in state)
        names[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{2 * block + 1}.{1 + attention}.conv"
    names |= {f"mid_block.resnets.{k}": f"middle_block.{2 * k}" for k in range(2)}
    names["mid_block.attentions.0"] = "middle_block.1"
    layers = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0"}
    layers |= {"conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    renamed = {}
    for name, value in state.items():
        start = max((part for part in names if name.startswith(f"{part}.")), key=len)
        rest = name[len(start) + 1 :]
        if ".resnets." in start:
            layer, _, last = rest.partition(".")
            rest = f"{layers[layer]}.{last}"
        renamed[f"{names[start]}.{rest}"] = value
    return renamed


FORMS: list[Callable[[dict[str, Tensor]], Path]] = [
    plain, pickled, wrapped, averaged, prefixed, original, original_bare, whole_checkpoint, bare_folder, whole_pipeline,
    pickled_folder,
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=lambda one: one.__name__)
def test_a_network_of_any_form_is_the_network(world: Path, form: Callable[[dict[str, Tensor]], Path]) -> None:
    place = form(tuned_state())
    generator = load_generator("./base", readout=0.6, weights=f"./{place}")
    state = generator.network.state_dict()
    assert state.keys() == tuned_state().keys()
    for name, value in tuned_state().items():
        assert torch.equal(state[name], value), name
    again: Any = load_generator("./base", readout=0.6, weights=f"./{place}")
    assert again.weights == generator.weights  # type: ignore[attr-defined]
    assert not list(Path("cache").rglob("*.partial"))


def test_the_base_with_the_file_is_the_pipeline_of_the_file(world: Path) -> None:
    """Equal to the other pipeline's images before and after the export, in plain diffusers as well."""
    ours = load_generator("./base", readout=0.6, weights=f"./{FILE}")
    condition = load_reference("./base").encode(PROMPTS)
    noise = fixed_noise(2, (4, 8, 8), 0)
    theirs = load_generator("./tuned", readout=0.6)
    with torch.no_grad():
        assert torch.equal(ours.generate(noise, condition), theirs.generate(noise, condition))
        assert not torch.equal(
            ours.generate(noise, condition), load_generator("./base", readout=0.6).generate(noise, condition)
        )
    ours.save_pretrained(world / "final")
    with quiet_loading():
        pipeline = DiffusionPipeline.from_pretrained("final")
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(PROMPTS, latents=noise, num_inference_steps=1, guidance_scale=1.0, output_type="pt").images
    with torch.no_grad():
        expected = load_reference("./base").decode(ours.generate(noise, condition))
    assert torch.allclose(images, expected, atol=1e-4)


SD3_NAMES = {
    "pos_embed.pos_embed": "pos_embed", "pos_embed.proj": "x_embedder.proj", "context_embedder": "context_embedder",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0", "proj_out": "final_layer.linear",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
}  # fmt: skip
SD3_BLOCK = {
    "norm1.linear": "x_block.adaLN_modulation.1", "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.to_out.0": "x_block.attn.proj", "attn.to_add_out": "context_block.attn.proj",
    "attn.norm_q": "x_block.attn.ln_q", "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k", "ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1", "ff_context.net.2": "context_block.mlp.fc2",
}  # fmt: skip
SD3_JOINED = {
    ("to_q", "to_k", "to_v"): "x_block.attn.qkv",
    ("add_q_proj", "add_k_proj", "add_v_proj"): "context_block.attn.qkv",
}


def sd3_names(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """A transformer of Stable Diffusion 3 under the names of the code that it was published with."""
    renamed, rest = {}, dict(state)
    names = dict(SD3_NAMES)
    for block in range(layers):
        ours, theirs = f"transformer_blocks.{block}", f"joint_blocks.{block}"
        names |= {f"{ours}.{item}": f"{theirs}.{other}" for item, other in SD3_BLOCK.items()}
        for parts, joined in SD3_JOINED.items():
            for end in ("weight", "bias"):
                of_parts = [rest.pop(f"{ours}.attn.{part}.{end}") for part in parts]
                renamed[f"{theirs}.{joined}.{end}"] = torch.cat(of_parts)
    for name, value in rest.items():
        start = max((part for part in names if name == part or name.startswith(f"{part}.")), key=len)
        # Of what scales and shifts at the end, the published code says the shift first.
        last = start in ("norm_out.linear", f"transformer_blocks.{layers - 1}.norm1_context.linear")
        renamed[names[start] + name[len(start) :]] = torch.cat(value.chunk(2)[::-1]) if last else value
    return renamed


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_transformer_under_its_published_names_is_converted_by_diffusers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    base, tuned = (write_twin("StableDiffusion3Pipeline", tmp_path / str(seed), seed=seed) for seed in (0, 7))
    expected = load_file(tuned / "transformer" / WEIGHTS)
    layers = json.loads((tuned / "transformer" / "config.json").read_text())["num_layers"]
    content = {f"{prefix}{name}": item.clone() for name, item in sd3_names(expected, layers).items()}
    save_file(content | {"first_stage_model.x": torch.ones(1)}, tmp_path / "sd3_medium.safetensors")
    generator = load_generator(str(base), weights=str(tmp_path / "sd3_medium.safetensors"))
    state = generator.network.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


def pixart_names(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """PixArt-alpha's transformer under the names of the code that it was published with."""
    names = {
        "pos_embed.proj": "x_embedder.proj", "adaln_single.linear": "t_block.1", "proj_out": "final_layer.linear",
        "scale_shift_table": "final_layer.scale_shift_table",
    }  # fmt: skip
    for number, layer in ((1, 0), (2, 2)):
        names[f"caption_projection.linear_{number}"] = f"y_embedder.y_proj.fc{number}"
        names[f"adaln_single.emb.timestep_embedder.linear_{number}"] = f"t_embedder.mlp.{layer}"
    renamed, rest = {"pos_embed": torch.ones(1, 16, 8), "y_embedder.y_embedding": torch.ones(120, 32)}, dict(state)
    for block in range(layers):
        ours, theirs = f"transformer_blocks.{block}", f"blocks.{block}"
        parts = {
            "attn1.to_out.0": "attn.proj",
            "attn2.to_q": "cross_attn.q_linear",
            "attn2.to_out.0": "cross_attn.proj",
        }
        parts |= {"ff.net.0.proj": "mlp.fc1", "ff.net.2": "mlp.fc2", "scale_shift_table": "scale_shift_table"}
        names |= {f"{ours}.{item}": f"{theirs}.{other}" for item, other in parts.items()}
        for end in ("weight", "bias"):
            for attention, letters, joined in (("attn1", "qkv", "attn.qkv"), ("attn2", "kv", "cross_attn.kv_linear")):
                cut = [rest.pop(f"{ours}.{attention}.to_{letter}.{end}") for letter in letters]
                renamed[f"{theirs}.{joined}.{end}"] = torch.cat(cut)
    for name, value in rest.items():
        start = max((part for part in names if name == part or name.startswith(f"{part}.")), key=len)
        renamed[names[start] + name[len(start) :]] = value
    return renamed


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_of_pixarts_own_code_is_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    base, tuned = (write_twin("PixArtAlphaPipeline", tmp_path / str(seed), seed=seed) for seed in (0, 7))
    expected = load_file(tuned / "transformer" / WEIGHTS)
    layers = json.loads((tuned / "transformer" / "config.json").read_text())["num_layers"]
    content = {f"{prefix}{name}": item for name, item in pixart_names(expected, layers).items()}
    saved = {
        "step": torch.tensor(3),
        "state_dict": content,
        "state_dict_ema": {name: value + 1 for name, value in content.items()},
    }
    torch.save(saved, tmp_path / "checkpoint.pt")
    generator = load_generator(str(base), weights=str(tmp_path / "checkpoint.pt"))
    state = generator.network.state_dict()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name
    del saved["state_dict"][f"{prefix}blocks.0.mlp.fc1.weight"], saved["state_dict_ema"]  # type: ignore[index, arg-type]
    torch.save(saved, tmp_path / "checkpoint.pt")
    with pytest.raises(
        RequestError, match=r"1 of \d+ tensors are missing, such as 'transformer_blocks\.0\.ff\.net\.0\.proj"
    ):
        load_generator(str(base), weights=str(tmp_path / "checkpoint.pt"))


def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(list(state.items())[: len(state) // 2])


def half_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return half(ldm_names(state))


def other_shape(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "conv_in.weight": torch.zeros(8, 9, 3, 3)}


def other_network(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return load_file(write_twin("PixArtAlphaPipeline", Path("pixart")) / "transformer" / WEIGHTS)


def lora(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.zeros(4, 16)}


def inpainting(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "controlnet_cond_embedding.weight": torch.zeros(3)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (half, (r"\d+ of \d+ tensors are missing, such as '[\w.]+' \(\d+", "name the pipeline that it was made for")),
        (half_original, ("does not fit the unet of base",)),
        (other_shape, (r"1 have another shape, such as 'conv_in.weight' with \(8, 9, 3, 3\) for \(8, 4, 3, 3\)",)),
        (other_network, ("tensors are missing", "belong to no part of it, such as ")),
        (lora, ("is a LoRA, not a whole network", "lora_A", "to the setting lora")),
        (inpainting, (r"1 belong to no part of it, such as 'controlnet_cond_embedding.weight' \(3,\)",)),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(
    world: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: tuple[str, ...]
) -> None:
    save_file(change(tuned_state()), "wrong.safetensors")
    with pytest.raises(RequestError) as raised:
        load_generator("./base", readout=0.6, weights="./wrong.safetensors")
    assert "\n" not in str(raised.value)
    for word in words:
        assert re.search(word, str(raised.value)), str(raised.value)
    left = [
        path
        for path in Path("cache").rglob("*")
        if path.is_file() and path.suffix != ".lock" and "digests" not in str(path)
    ]
    assert not left


def test_a_pickle_that_would_run_code_is_refused(world: Path) -> None:
    write_bomb(Path("bomb.pt"), world / "marker")
    with pytest.raises(RequestError, match=r"bomb\.pt is refused"):
        load_generator("./base", weights="./bomb.pt")
    assert not (world / "marker").exists()


def test_a_folder_of_another_class_is_refused_by_its_name(world: Path) -> None:
    write_twin("PixArtAlphaPipeline", Path("pixart"))
    with pytest.raises(RequestError, match=r"holds the weights of a PixArtTransformer2DModel, and the unet of base is"):
        load_generator("./base", weights="./pixart/transformer")


def test_weights_of_another_content_are_converted_anew(world: Path) -> None:
    before: Any = load_generator("./base", weights=f"./{FILE}")
    save_file({name: value + 1 for name, value in tuned_state().items()}, FILE)
    after: Any = load_generator("./base", weights=f"./{FILE}")
    assert before.weights != after.weights
    assert len([path for path in Path("cache/converted").iterdir() if path.is_dir()]) == 2


def test_a_hub_file_comes_through_the_hubs_cache(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(hub: str, inside: str) -> Path:
        asked.append((hub, inside))
        return world / FILE

    monkeypatch.setattr(sources, "hub_file", fetch)
    generator = load_generator("./base", weights=f"ByteDance/Hyper-SD:{FILE}")
    assert asked == [("ByteDance/Hyper-SD", FILE)]
    assert torch.equal(generator.network.state_dict()["conv_in.weight"], tuned_state()["conv_in.weight"])


def test_a_dry_run_notes_the_file_and_writes_nothing(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--generator", "./base", "--reference", "./base", "--prompts", "prompts.txt", "--dry-run"]
    assert main([*words, "--set", f"weights=owner/name:{FILE}"]) == 0
    assert f"{FILE} of huggingface.co/owner/name" in capsys.readouterr().out
    assert main([*words, "--set", f"weights=./{FILE}"]) == 0
    assert not Path("cache/converted").exists()
    save_file(half(tuned_state()), "wrong.safetensors")
    assert main([*words, "--set", "weights=./wrong.safetensors"]) == 2
    assert "does not fit the unet" in capsys.readouterr().err
    assert not Path("cache/converted").exists()


@pytest.mark.first_case
@pytest.mark.parametrize(
    ("command", "mode", "how"), [(["train", "--generator", "./base"], "full", "words"), (["distill"], "lora", "yaml")]
)
def test_a_run_starts_from_the_file(
    world: Path, command: list[str], mode: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In lora mode the file is what the adapter sits on: with another content the run is not resumed."""
    Path("settings.yaml").write_text(f"weights: ./{FILE}\nreadout: 0.6\n")
    said = ["--config", "settings.yaml"] if how == "yaml" else ["--set", f"weights=./{FILE}", "--set", "readout=0.6"]
    words = [*command, "--reference", "./base", "--prompts", "prompts.txt", "--quiet", "--steps", "1", "--out", "run"]
    words += ["--set", "learning_rate=1e-9", "--set", f"mode={mode}", "--set", "lora_rank=2", "--set", "eval_count=1"]
    assert main([*words, *said, "--batch-size", "1"]) == 0
    trained = load_file(next(Path("run/final/unet").glob("*.safetensors")))
    for name, value in tuned_state().items():
        assert torch.allclose(trained[name].float(), value, atol=1e-3), name
    save_file({name: value + 1 for name, value in tuned_state().items()}, FILE)
    resumed = main(["train", "--resume", "--out", "run", "--steps", "2", "--quiet"])
    said = capsys.readouterr()
    assert resumed == (2 if mode == "lora" else 0)
    assert "the generator's start weights (sha256" in said.err + said.out


def test_generate_and_bench_take_the_file_as_well(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--generator", "./base", "--prompt", "a red fox on blue", "--json", "--set", "readout=0.6"]
    assert main([*words, "--out", "a", "--set", f"weights=./{FILE}"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == f"./{FILE}"
    words[2] = "./tuned"
    assert main([*words, "--out", "b", "--reference", "./base"]) == 0
    assert next(Path("a").glob("*.png")).read_bytes() == next(Path("b").glob("*.png")).read_bytes()
    assert main([*words, "--set", "wieghts=x"]) == 2
    assert "Did you mean 'weights'?" in capsys.readouterr().err
    (one,) = parse_entries("new=./base", {"new": {"weights": f"./{FILE}", "readout": 0.6}})
    source = one.source(torch.device("cpu"))
    assert source.generator is not None
    assert torch.equal(source.generator.network.state_dict()["conv_in.weight"], tuned_state()["conv_in.weight"])


def test_a_published_references_name_is_the_pipeline_of_a_file(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--generator sdxl --set weights=...`, as it is read before anything is fetched."""
    words = ["train", "--generator", "sdxl", "--prompts", "prompts.txt", "--dry-run"]
    assert main(words) == 2
    assert "is a multi-step reference" in capsys.readouterr().err
    assert main([*words, "--set", f"weights=ByteDance/Hyper-SD:{FILE}"]) == 0
    printed = capsys.readouterr().out
    assert f"{FILE} of huggingface.co/ByteDance/Hyper-SD" in printed
    assert "stabilityai/stable-diffusion-xl-base-1.0" in printed


def test_a_run_and_everybody_else_read_such_weights_alike(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[dict[str, Any]] = []
    base = DiffusersGenerator.load("./base")
    monkeypatch.setattr(DiffusersGenerator, "load", lambda _, **options: loaded.append(options) or base)
    for given in ({}, {"readout": 0.8, "input_scale": "unit"}):
        settings = {"weights": f"./{FILE}"} | given
        load_generator("sd15", **settings)
        config = resolve(TrainConfig(generator="sd15", prompts="prompts.txt", **settings))
        assert loaded.pop() == generator_options(config)
        assert (config.readout, config.input_scale) == (tuple(given.values()) or (625 / 999, "sigma"))


def test_the_other_names_are_those_of_the_published_code() -> None:
    """What the tests above convert is a whole checkpoint of Stable Diffusion, its attention included."""
    network = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
    )  # fmt: skip
    names = ldm_names(network.state_dict())
    assert len(names) == len(network.state_dict())
    assert "middle_block.1.transformer_blocks.0.attn2.to_k.weight" in names


def test_what_a_dry_run_would_fetch_is_noted_once(world: Path) -> None:
    with without_fetching() as missing:
        load_generator("./base", weights="owner/name:unet")
    assert list(missing) == ["the weights and configurations of huggingface.co/owner/name"]
