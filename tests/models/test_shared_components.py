"""Text encoders, tokenizers and autoencoders of two pipelines are compared; one set is used and exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel

from dipp_cli.app import main
from dipp_toolkit import TrainConfig
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.sampling import fixed_noise, generate_images
from dipp_toolkit.models.shared_components import differences
from dipp_toolkit.models.shared_components.choice import check_conditions
from dipp_toolkit.models.shared_components.differences import differing_parts, part_names
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.planning.estimate import make_plan
from dipp_toolkit.training.setup.assembly import assemble
from tiny import PROMPTS

CLASSES = ("PixArtAlpha", "StableDiffusion", "StableDiffusionXL", "StableDiffusion3", "Flux")
STABLE = "StableDiffusionPipeline"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Write other tensors into a file of weights."""
    tensors = {name: tensor.clone() for name, tensor in change(load_file(path)).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def halved(tensors: dict[str, Tensor], dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("twins")
    return {name: write_twin(f"{name}Pipeline", root / name) for name in CLASSES}


@pytest.fixture
def pair(twins: dict[str, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Two Stable Diffusion pipelines whose networks alone differ."""
    folders = tmp_path / "generator", tmp_path / "reference"
    for folder in folders:
        shutil.copytree(twins["StableDiffusion"], folder)
    rewrite(weights(folders[0], "unet"), lambda tensors: {name: tensor * 1.01 for name, tensor in tensors.items()})
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return folders


def weights(folder: Path, name: str) -> Path:
    return next((folder / name).glob("*.safetensors"))


def other_vae(folder: Path) -> None:
    rewrite(weights(folder, "vae"), lambda tensors: {name: tensor + 0.1 for name, tensor in tensors.items()})


def other_encoder(folder: Path) -> None:
    rewrite(weights(folder, "text_encoder"), lambda tensors: {name: tensor + 0.1 for name, tensor in tensors.items()})


@pytest.mark.parametrize("name", CLASSES)
def test_copies_in_half_precision_are_the_same_parts(twins: dict[str, Path], name: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(twins[name], copy)
    for path in copy.glob("*/*.safetensors"):
        save_file(halved(load_file(path)), path.with_name(f"{path.stem}.fp16.safetensors"), metadata={"format": "pt"})
        path.unlink()
    for path in copy.glob("tokenizer*/*.json"):
        path.write_text(json.dumps(json.loads(path.read_text())))  # other bytes, the same words
    assert differing_parts(twins[name], copy) == differing_parts(copy, twins[name]) == {}
    path = weights(copy, "vae")
    tensors = load_file(path)
    tensors["decoder.conv_in.weight"].view(torch.int16)[0, 0, 0, 0] += 1  # the last bit of float16
    save_file(tensors, path, metadata={"format": "pt"})
    expected = {"vae": "other weights, decoder.conv_in.weight among them"}
    assert differing_parts(twins[name], copy) == differing_parts(copy, twins[name]) == expected


def older_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As published text encoders call their tensors, with the table of positions that they saved."""
    older = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}
    return older | {"text_model.embeddings.position_ids": torch.arange(77)[None]}


def older_vae(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As Stable Diffusion's autoencoder was published."""
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    return {
        next((name.replace(new, old) for new, old in older.items() if f".{new}." in name), name): tensor
        for name, tensor in tensors.items()
    }


def test_older_names_and_shards_are_the_same_parts(pair: tuple[Path, Path]) -> None:
    rewrite(weights(pair[0], "text_encoder"), older_names)
    before = set(load_file(weights(pair[0], "vae")))
    rewrite(weights(pair[0], "vae"), lambda tensors: older_vae(halved(tensors)))
    assert set(load_file(weights(pair[0], "vae"))) != before
    encoder = CLIPTextModel.from_pretrained(pair[1] / "text_encoder")
    weights(pair[1], "text_encoder").unlink()
    encoder.save_pretrained(pair[1] / "text_encoder", max_shard_size="10KB")
    assert len(list((pair[1] / "text_encoder").glob("*.safetensors"))) > 1
    assert differing_parts(*pair) == {}
    other_vae(pair[0])
    assert differing_parts(*pair).keys() == {"vae"}


def test_a_tensor_that_is_saved_twice_is_the_same_part(twins: dict[str, Path], tmp_path: Path) -> None:
    """T5's embedding is saved under one name or under two."""
    copy = tmp_path / "copy"
    shutil.copytree(twins["PixArtAlpha"], copy)
    path = weights(copy, "text_encoder")
    rewrite(path, lambda tensors: tensors | {"encoder.embed_tokens.weight": tensors["shared.weight"]})
    assert differing_parts(copy, twins["PixArtAlpha"]) == differing_parts(twins["PixArtAlpha"], copy) == {}
    rewrite(path, lambda tensors: tensors | {"encoder.embed_tokens.weight": tensors["shared.weight"] + 1})
    assert differing_parts(copy, twins["PixArtAlpha"]).keys() == {"text_encoder"}


def test_two_kinds_of_half_precision_cannot_be_told_to_be_the_same(pair: tuple[Path, Path]) -> None:
    for folder, dtype in zip(pair, (torch.float16, torch.bfloat16), strict=True):
        rewrite(weights(folder, "vae"), lambda tensors, dtype=dtype: halved(tensors, dtype))
    assert differing_parts(*pair).keys() == {"vae"}


def test_configurations_are_compared_with_their_defaults(pair: tuple[Path, Path]) -> None:
    config = json.loads((pair[0] / "vae/config.json").read_text())
    for key in ("shift_factor", "act_fn"):
        config.pop(key)
    (pair[0] / "vae/config.json").write_text(json.dumps(config | {"force_upcast": False, "sample_size": 512}))
    edit(pair[0] / "text_encoder/config.json", dtype="float16", transformers_version="4.21.0", use_cache=True)
    assert differing_parts(*pair) == {}
    edit(pair[0] / "vae/config.json", scaling_factor=0.13025)
    edit(pair[0] / "text_encoder/config.json", hidden_act="gelu")
    assert differing_parts(*pair, weights=False) == {
        "vae": "scaling_factor is 0.13025 and 0.18215",
        "text_encoder": "hidden_act is 'gelu' and 'quick_gelu'",
    }


def test_tokenizers_are_compared_by_what_they_make_of_texts(pair: tuple[Path, Path]) -> None:
    path = pair[0] / "tokenizer/tokenizer_config.json"
    edit(path, padding_side="left")
    assert differing_parts(*pair)["tokenizer"].startswith("other tokens for")
    edit(path, padding_side="right", pad_token="!")
    assert differing_parts(*pair)["tokenizer"] in ("another vocabulary", "other special tokens")
    shutil.copyfile(pair[1] / "tokenizer/tokenizer_config.json", path)
    edit(path, model_max_length=20)
    assert differing_parts(*pair)["tokenizer"] == "another length"


def test_networks_that_cannot_read_one_condition_are_refused_before_weights_are_read(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(pair[0] / "unet/config.json", cross_attention_dim=24)
    for path in tmp_path.glob("*/*/*.safetensors"):
        path.write_bytes(b"")  # whoever opens one says that it is damaged
    for more in ([], ["--set", "parts=reference"], ["--set", "parts=generator"], ["--dry-run"]):
        assert main([*train_words(pair, tmp_path), *more]) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert "reads 24 channels of encoder_hidden_states, that of the reference" in error
        assert "16 channels of encoder_hidden_states: no prompt can be encoded for both" in error and "--ref" in error
    assert not (tmp_path / "run").exists()


def train_words(pair: tuple[Path, Path], tmp_path: Path) -> list[str]:
    return [
        "train", "--generator", str(pair[0]), "--reference", str(pair[1]), "--prompts", str(tmp_path / "prompts.txt"),
        "--out", str(tmp_path / "run"), "--device", "cpu", "--steps", "1", "--batch-size", "2", "--quiet", "--set",
        "eval_count=2", "--set", "reference_steps=1", "--set", "monitor_every=0", "--set", "diagnose_every=0",
    ]  # fmt: skip


def test_other_pipeline_classes_are_refused(twins: dict[str, Path]) -> None:
    for name in CLASSES:
        for other in CLASSES:
            if name == other:
                check_conditions(twins[name], twins[other])
            else:
                with pytest.raises(RequestError, match="no prompt can be encoded for both"):
                    check_conditions(twins[name], twins[other])


def test_a_plan_refuses_what_a_training_would() -> None:
    config = TrainConfig(generator="sd-turbo", reference="sd15", prompts="p.txt")
    with pytest.raises(RequestError, match=r"reads 1024 channels.*768 channels"):
        make_plan(config)


def test_other_parts_are_refused_and_named(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other_vae(pair[0])
    edit(pair[0] / "text_encoder/config.json", hidden_act="gelu")
    assert main(train_words(pair, tmp_path)) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "text_encoder (hidden_act is 'gelu' and 'quick_gelu')" in error and "vae (other weights" in error
    assert "--set parts=reference or --set parts=generator" in error and str(pair[0].name) in error

    def read(*_: object) -> str:
        raise AssertionError("weights were read")

    monkeypatch.setattr(differences, "first_difference", read)
    assert main([*train_words(pair, tmp_path), "--dry-run"]) == 2
    assert "hidden_act" in capsys.readouterr().err
    shutil.copyfile(pair[1] / "text_encoder/config.json", pair[0] / "text_encoder/config.json")
    assert main([*train_words(pair, tmp_path), "--dry-run"]) == 0
    assert "weights are compared as the run begins" in " ".join(capsys.readouterr().out.split())
    assert main([*train_words(pair, tmp_path), "--dry-run", "--set", "parts=generator"]) == 0
    assert "autoencoder of the generator" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "run").exists()


def settings(pair: tuple[Path, Path], tmp_path: Path, parts: Any) -> TrainConfig:
    return TrainConfig(
        generator=str(pair[0]), reference=str(pair[1]), parts=parts, prompts=str(tmp_path / "prompts.txt"),
        eval_count=2, batch_size=2, device="cpu", precision="fp32", prompt_cache=tmp_path / "cache",
    )  # fmt: skip


@pytest.mark.parametrize("parts", ["reference", "generator"])
def test_what_is_chosen_is_used_in_training_and_exported(pair: tuple[Path, Path], tmp_path: Path, parts: str) -> None:
    """An export draws in plain diffusers what the training drew."""
    for change in (other_vae, other_encoder):
        change(pair[0])
    with pytest.raises(RequestError, match=r"text_encoder \(other weights.*vae \(other weights"):
        assemble(settings(pair, tmp_path, "same"))
    run = assemble(settings(pair, tmp_path, parts))
    images = generate_images(run.generator, run.reference, run.eval_conditions, 3)
    run.generator.save_pretrained(tmp_path / "final")
    chosen = pair[parts == "reference"]
    for name in part_names(chosen):
        for path in (chosen / name).iterdir():
            assert (tmp_path / "final" / name / path.name).read_bytes() == path.read_bytes()
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "final")
    pipeline.set_progress_bar_config(disable=True)
    noise = fixed_noise(len(images), run.generator.latent_shape, 3)
    prompts = list(run.eval_conditions.prompts)
    call = {"num_inference_steps": 1, "guidance_scale": 1.0, "output_type": "pt"}
    torch.testing.assert_close(pipeline(prompts, latents=noise, **call).images, images, rtol=1e-4, atol=1e-4)
    strange = DiffusionPipeline.from_pretrained(
        pair[parts == "generator"], unet=pipeline.unet, scheduler=pipeline.scheduler
    )
    strange.set_progress_bar_config(disable=True)
    assert (strange(prompts, latents=noise, **call).images - images).abs().max() > 1e-2


def test_of_the_same_parts_the_whole_ones_are_exported(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """With encoded prompts at hand, the reference's text encoder need not be there."""
    assemble(settings(pair, tmp_path, "same"))
    weights(pair[1], "text_encoder").unlink()
    run = assemble(settings(pair, tmp_path, "same"))
    run.generator.save_pretrained(tmp_path / "final")
    assert weights(tmp_path / "final", "text_encoder").read_bytes() == weights(pair[0], "text_encoder").read_bytes()


def test_a_generator_without_an_encoder_of_its_own_is_given_the_references(
    twins: dict[str, Path], tmp_path: Path
) -> None:
    folders = tmp_path / "generator", twins["StableDiffusion3"]
    shutil.copytree(folders[1], folders[0])
    edit(folders[0] / "model_index.json", text_encoder_3=[None, None], tokenizer_3=[None, None])
    for name in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folders[0] / name)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    assert differing_parts(*folders).keys() == {"text_encoder_3", "tokenizer_3"}
    run = assemble(settings(folders, tmp_path, "reference"))
    run.generator.save_pretrained(tmp_path / "final")
    assert "text_encoder_3" in part_names(tmp_path / "final")
    assert weights(tmp_path / "final", "text_encoder_3").is_file()


@pytest.fixture
def drawing(pair: tuple[Path, Path]) -> Iterator[tuple[Path, Path]]:
    other_vae(pair[0])
    yield pair


def test_drawing_with_other_parts_is_refused_and_the_advice_works(
    drawing: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--generator", str(drawing[0]), "--prompt", "a cat", "--device", "cpu"]
    out = ["--out", str(tmp_path / "images")]
    assert main([*words, *out, "--reference", str(drawing[1])]) == 2
    error = "".join(capsys.readouterr().err.split())
    assert f"--reference{drawing[0]}" in error and "vae(otherweights" in error
    assert main([*words, *out, "--reference", str(drawing[0])]) == 0


def test_a_bench_with_other_parts_is_refused(
    drawing: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "bench", "--generators", f"mine={drawing[0]}", "--prompts", str(tmp_path / "prompts.txt"), "--out",
        str(tmp_path / "bench"), "--device", "cpu", "--metrics", "diversity", "--set",
    ]  # fmt: skip
    assert main([*words, f"generator.mine.reference={drawing[1]}"]) == 2
    error = "".join(capsys.readouterr().err.split())
    assert f"--setgenerator.mine.reference={drawing[0]}" in error
