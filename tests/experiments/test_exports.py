"""Exports of every pipeline class, read back by stock diffusers from the same noise, and what refuses one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import dipp_toolkit.models.original_layout.checkpoint as checkpoints
from dipp_cli.app import main
from dipp_toolkit import RequestError
from dipp_toolkit.experiments.exports import round_trip
from dipp_toolkit.experiments.exports.comfyui import export_comfyui
from dipp_toolkit.experiments.exports.lora import export_lora
from dipp_toolkit.experiments.exports.result import Check
from dipp_toolkit.experiments.exports.single_file import export_single_file
from dipp_toolkit.experiments.exports.subject import ExportSubject
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.lora import PEFT_PREFIX, AdapterSettings
from dipp_toolkit.models.lora_difference import factors, lora_difference
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.models.weight_sharing import trainable_parameters
from tiny import PROMPTS
from tiny_runs import BLUE

SD, XL, SD3, FLUX, PIXART = (
    "StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline",
    "PixArtAlphaPipeline",
)  # fmt: skip
RANK, ALPHA = 4, 10.0
LOADED = {
    "ckpt_name": "checkpoints", "unet_name": "diffusion_models", "clip_name": "text_encoders", "vae_name": "vae",
}  # fmt: skip
F32 = torch.float32


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """A twin, and a generator that starts from it with an adapter that has moved, by the pipeline's class."""
    root = tmp_path_factory.mktemp("trained")

    def make(name: str) -> tuple[Path, Path]:
        base, final = root / name / "base", root / name / "final"
        if not final.exists():
            write_twin(name, base)
            generator = DiffusersGenerator.load(str(base), 1.0 if name in (SD3, FLUX) else 400 / 999)
            generator.adapt(AdapterSettings(RANK, ALPHA), DiffusersReference.load(str(base)))
            with torch.no_grad():
                for parameter in trainable_parameters(generator.network):
                    random = torch.Generator().manual_seed(parameter.numel())
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
            generator.save_pretrained(final)
        return base, final

    return make


@pytest.mark.first_case
@pytest.mark.parametrize("name", [SD, XL, SD3, FLUX, PIXART])
def test_stock_diffusers_draws_the_same_with_the_lora(trained: Any, name: str, tmp_path: Path) -> None:
    base, final = trained(name)
    subject = ExportSubject.open(str(final), str(base))
    done = export_lora(subject, tmp_path / "lora", F32)
    assert done.check is not None and done.check.difference is not None
    assert done.check.difference < 1e-4 and not done.check.failed and done.check.limit == 1e-4
    assert ("PeftModel" in done.check.how) == (name == PIXART)
    assert (tmp_path / "lora" / "pytorch_lora_weights.safetensors").is_file() == (name != PIXART)
    assert any("loads no LoRA files" in note for note in done.notes) == (name == PIXART)
    without = round_trip.plain_pipeline(subject.folder, F32, torch.device("cpu"), subject.start)
    other = round_trip._compared(subject, lambda: without, "", 1e-4)
    assert other.failed and other.difference is not None and other.difference > 0.01  # so the LoRA is what does it


@pytest.mark.parametrize("name", [SD, XL, SD3, PIXART])
def test_stock_diffusers_draws_the_same_from_one_file(trained: Any, name: str, tmp_path: Path) -> None:
    _, final = trained(name)
    done = export_single_file(ExportSubject.open(str(final)), tmp_path / "one.safetensors", F32)
    assert done.check is not None and done.check.difference is not None
    assert done.check.difference < 1e-4 and not done.check.failed
    assert ("from_single_file" in done.check.how) == (name != PIXART)
    assert any("text_encoder_3.eval()" in note for note in done.notes) == (name == SD3)
    with safe_open(tmp_path / "one.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_flux_of_another_width_says_why_it_is_not_checked(trained: Any, tmp_path: Path) -> None:
    _, final = trained(FLUX)
    done = export_single_file(ExportSubject.open(str(final)), tmp_path / "one.safetensors", F32)
    assert done.check is not None and done.check.difference is None and not done.check.failed
    assert "a width of 3072 alone, not of 32" in done.check.text


@pytest.mark.parametrize("name", [SD, XL, SD3, FLUX, PIXART])
def test_comfyui_gets_weights_loras_and_workflows(trained: Any, name: str, tmp_path: Path) -> None:
    _, final = trained(name)
    place = tmp_path / "comfy"
    done = export_comfyui(ExportSubject.open(str(final)), place, F32, name="it")
    assert set(done.files) == {path for path in place.rglob("*") if path.is_file()}
    assert done.check is not None and not done.check.failed
    assert (done.check.difference is None) == (name == FLUX)
    for path in done.files:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    served = json.loads((place / "it_api.json").read_text(encoding="utf-8"))
    for node in served.values():
        for key, folder in LOADED.items():
            if key in node["inputs"]:
                assert (place / "models" / folder / node["inputs"][key]).is_file()
    lora = load_file(place / "models" / "loras" / "it_lora.safetensors")
    prefix = "lora_unet_" if name in (SD, XL) else "transformer."
    assert lora and all(key.startswith(prefix) for key in lora)
    assert any("will not recognise" in note for note in done.notes)
    assert any("was not run" in note for note in done.notes)


def test_half_precision_is_written_and_only_told(trained: Any, tmp_path: Path) -> None:
    base, final = trained(SD)
    subject = ExportSubject.open(str(final), str(base))
    done = export_single_file(subject, tmp_path / "one.safetensors", torch.float16)
    written = load_file(tmp_path / "one.safetensors")
    assert {tensor.dtype for tensor in written.values()} <= {torch.float16, torch.int64}
    assert done.check is not None and done.check.limit is None and 0 < (done.check.difference or 0) < 0.05
    lora = export_lora(subject, tmp_path / "lora", torch.bfloat16, check=False)
    assert lora.check is None
    stored = load_file(tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}


def test_an_adapter_of_before_peft_s_prefix_is_exported_as_well(trained: Any, tmp_path: Path) -> None:
    base, final = trained(SD)
    shutil.copytree(final, tmp_path / "final")
    path = tmp_path / "final" / "adapter" / "adapter_model.safetensors"
    bare = {name.removeprefix(PEFT_PREFIX): t for name, t in load_file(path).items() if name.startswith(PEFT_PREFIX)}
    save_file(bare, path)
    done = export_lora(ExportSubject.open(str(tmp_path / "final"), str(base)), tmp_path / "lora", F32)
    assert done.check is not None and done.check.difference is not None and done.check.difference < 1e-4


def test_a_layer_in_another_place_fails_the_round_trip(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, final = trained(SD)
    subject = ExportSubject.open(str(final))
    right = checkpoints.original_checkpoint

    def wrong(*arguments: Any) -> Any:
        made = right(*arguments)
        first, second = (f"model.diffusion_model.middle_block.{place}.in_layers.2.weight" for place in (0, 2))
        made.tensors[first], made.tensors[second] = made.tensors[second], made.tensors[first]
        return made

    monkeypatch.setattr("dipp_toolkit.experiments.exports.single_file.original_checkpoint", wrong)
    done = export_single_file(subject, tmp_path / "one.safetensors", F32)
    assert done.check is not None and done.check.failed and "more than 0.0001" in done.check.text


def test_what_is_no_number_has_failed() -> None:
    assert Check("", float("nan"), 1e-4).failed
    assert not Check("", 0.5, None).failed and not Check("", None, 1e-4).failed


def test_a_product_of_full_rank_is_the_change_and_a_smaller_one_the_best() -> None:
    random = torch.Generator().manual_seed(0)
    for shape in ((6, 5), (6, 5, 3, 3)):
        change = torch.randn(shape, generator=random)
        down, up = factors(change, 6)
        assert down.shape == (6, *shape[1:]) and up.shape == (6, 6, *(1 for _ in shape[2:]))
        assert torch.allclose((up.flatten(1) @ down.flatten(1)).reshape(shape), change, atol=1e-5)
        values = torch.linalg.svdvals(change.flatten(1))
        down, up = factors(change, 2)
        lost = (change.flatten(1) - up.flatten(1) @ down.flatten(1)).square().sum()
        assert torch.isclose(lost, values[2:].square().sum(), rtol=1e-4)
    wide = torch.randn(200, 12, generator=random) @ torch.randn(12, 300, generator=random)
    down, up = factors(wide, 12)  # by the randomised decomposition
    assert torch.allclose(up @ down, wide, atol=1e-3)
    assert torch.equal(factors(wide, 12)[0], down)


def test_a_difference_says_what_it_keeps() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    base = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(RequestError, match="nothing for a LoRA"):
        lora_difference(network, base, 1)
    with torch.no_grad():
        network[0].weight.add_(torch.diag(torch.tensor([2.0, 1.0, 0.0, 0.0])))
        network[1].bias.add_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    found = lora_difference(network, base, 1)
    assert found.layers == ["0"] and found.kept == pytest.approx(4 / 5) and found.outside == pytest.approx(1 / 6)
    with pytest.raises(RequestError, match="--base"):
        lora_difference(torch.nn.Linear(4, 4), base, 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two short runs from a twin: `lora` and `full`."""
    root = tmp_path_factory.mktemp("runs")
    write_twin(SD, root / "base")
    (root / "prompts.txt").write_text("\n".join(PROMPTS))
    (root / "blue.py").write_text(BLUE)
    for mode in ("lora", "full"):
        words = ["train", "--generator", str(root / "base"), "--reference", str(root / "base")]
        words += ["--reward", f"{root}/blue.py:blueness", "--prompts", str(root / "prompts.txt"), "--mode", mode]
        words += ["--batch-size", "2", "--steps", "2", "--set", "eval_count=2", "--set", "reference_steps=2"]
        words += ["--set", "assistant_warmup=0", "--set", "learning_rate=1e-3", "--precision", "fp32"]
        words += ["--set", "lora_rank=4", "--out", str(root / mode), "--quiet"]
        assert main(words) == 0
    return root


def test_a_run_is_exported_by_its_folder(runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for form, out in (("lora", "l"), ("single-file", "one.safetensors"), ("comfyui", "c")):
        capsys.readouterr()
        assert main(["export", str(runs / "lora"), "--to", form, "--out", str(tmp_path / out), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["check"]["passed"] and said["check"]["difference"] < 1e-4
        assert all(Path(path).is_file() for path in said["files"])
        assert main(["export", str(runs / "lora"), "--to", form, "--out", str(tmp_path / out)]) == 2
        assert "exists" in capsys.readouterr().err
    served = json.loads((tmp_path / "c" / "lora_api.json").read_text(encoding="utf-8"))
    assert PROMPTS[0] in [node["inputs"].get("text") for node in served.values()]
    pipeline = DiffusionPipeline.from_pretrained(runs / "base")
    pipeline.load_lora_weights(str(tmp_path / "l"))


def test_a_run_in_full_becomes_a_low_rank_difference(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kept = []
    for rank in ("1", "16"):
        capsys.readouterr()
        words = ["export", str(runs / "full"), "--to", "lora", "--rank", rank, "--out", str(tmp_path / rank), "--json"]
        assert main(words) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["rank"] == int(rank) and said["check"]["limit"] is None
        assert any("trained in full" in note for note in said["notes"])
        kept.append(said["kept"])
    assert 0 < kept[0] < kept[1] <= 1


def test_requests_that_cannot_be_done_are_sentences(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lora, full = str(runs / "lora"), str(runs / "full")
    (tmp_path / "full").mkdir()
    shutil.copytree(runs / "full" / "final", tmp_path / "alone")
    for words, sentence in (
        ([lora, "--to", "onnx"], "expected lora, single-file or comfyui"),
        ([lora, "--to", "lora", "--dtype", "fp8"], "--dtype fp8"),
        ([lora, "--to", "comfyui", "--rank", "4"], "--rank is for --to lora"),
        ([full, "--to", "lora", "--rank", "0"], "at least 1"),
        ([lora, "--to", "lora", "--rank", "5"], "an adapter of rank 4"),
        ([lora, "--to", "single-file", "--out", "folder"], "not a .safetensors file"),
        (["nowhere/at/all", "--to", "lora"], "nowhere"),
        ([str(runs), "--to", "lora"], "is not a diffusers pipeline"),
        (["alone", "--to", "lora"], "--base NAME"),
        (["alone", "--to", "lora", "--base", "emoji-unet-onestep"], "start weights are not of this network"),
    ):
        assert main(["export", *words]) == 2, words
        error = capsys.readouterr().err
        assert sentence in error and "Traceback" not in error, (words, error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "full"]
    assert main(["export", "alone", "--to", "lora", "--base", str(runs / "base"), "--no-check"]) == 0
    out = capsys.readouterr().out
    assert "alone-lora/pytorch_lora_weights.safetensors" in out and "difference" not in out
