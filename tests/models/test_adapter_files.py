"""What a LoRA run leaves in `final/adapter` is what peft and diffusers expect, as strong in either as when merged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dipp_toolkit.errors import RequestError
from dipp_toolkit.models import lora
from dipp_toolkit.models.components import load_component
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.lora import AdapterSettings
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.models.weight_sharing import trainable_parameters

CLASSES = (
    "PixArtAlphaPipeline", "StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline",
    "FluxPipeline",
)  # fmt: skip
RANK, ALPHA = 4, 10.0


@pytest.fixture(scope="module", params=CLASSES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A twin's folder, what a generator with an adapter on it is exported as, and the adapted component's name."""
    root = tmp_path_factory.mktemp("exported")
    base = write_twin(request.param, root / "base")
    generator = DiffusersGenerator.load(str(base), 1.0)
    generator.adapt(AdapterSettings(RANK, ALPHA), DiffusersReference.load(str(base)))
    with torch.no_grad():
        for parameter in trainable_parameters(generator.network):
            parameter.add_(
                0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    generator.save_pretrained(root / "final")
    return base, root / "final", generator.family.network_name


def weights_of(folder: Path, component: str) -> dict[str, Tensor]:
    network: Any = getattr(DiffusionPipeline.from_pretrained(folder), component)
    return dict(network.state_dict())


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], limit: float) -> None:
    assert ours.keys() == theirs.keys()
    assert max(float((our - theirs[name]).abs().max()) for name, our in ours.items()) <= limit


def test_the_adapter_loads_by_peft_as_strong_as_merged(exported: tuple[Path, Path, str]) -> None:
    base, final, component = exported
    merged = weights_of(final, component)
    network = getattr(DiffusionPipeline.from_pretrained(base), component)
    plain = {name: value.clone() for name, value in network.state_dict().items()}
    adapted = PeftModel.from_pretrained(network, str(final / "adapter"))
    assert adapted.peft_config["default"].lora_alpha == ALPHA
    assert {type(module.get_base_layer()) for module in adapted.modules() if hasattr(module, "get_base_layer")} >= {
        nn.Linear
    }
    assert_same(merged, dict(adapted.merge_and_unload().state_dict()), 1e-5)
    changed = [name for name, value in merged.items() if (value - plain[name]).abs().max() > 1e-3]
    assert len(changed) == sum(
        ".lora_A." in name for name in load_file(final / "adapter" / "adapter_model.safetensors")
    )


def test_the_adapter_loads_in_the_stock_pipeline_as_strong_as_merged(exported: tuple[Path, Path, str]) -> None:
    base, final, component = exported
    pipeline = DiffusionPipeline.from_pretrained(base)
    if not hasattr(pipeline, "load_lora_weights"):
        assert type(pipeline).__name__ == "PixArtAlphaPipeline"
        assert not (final / "adapter" / "pytorch_lora_weights.safetensors").exists()
        return
    pipeline.load_lora_weights(str(final / "adapter"))
    pipeline.fuse_lora(components=[component])
    pipeline.unload_lora_weights()
    assert_same(weights_of(final, component), dict(getattr(pipeline, component).state_dict()), 1e-5)


def test_the_network_itself_loads_either_file(exported: tuple[Path, Path, str]) -> None:
    base, final, component = exported
    merged = weights_of(final, component)
    for file, prefix in (("adapter_model.safetensors", None), ("pytorch_lora_weights.safetensors", component)):
        network = getattr(DiffusionPipeline.from_pretrained(base), component)
        if not hasattr(network, "load_lora_adapter"):
            assert type(network).__name__ == "PixArtTransformer2DModel"
            return
        network.load_lora_adapter(str(final / "adapter"), weight_name=file, prefix=prefix)
        network.fuse_lora()
        network.unload_lora()
        assert_same(merged, dict(network.state_dict()), 1e-5)


def test_the_files_say_that_all_layers_have_one_rank(exported: tuple[Path, Path, str]) -> None:
    """Plain diffusers before 0.40 reads no adapter whose settings leave these out."""
    from safetensors import safe_open

    for file in (exported[1] / "adapter").glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            settings = json.loads(opened.metadata()["lora_adapter_metadata"])
        patterns = {name: value for name, value in settings.items() if name.endswith("rank_pattern")}
        assert patterns, f"{file.name} says {sorted(settings)}"
        assert set(map(str, patterns.values())) == {"{}"}


def test_convolutions_are_adapted(exported: tuple[Path, Path, str]) -> None:
    _, final, component = exported
    shapes = [
        value.shape
        for name, value in load_file(final / "adapter" / "adapter_model.safetensors").items()
        if "lora_A" in name
    ]
    assert any(len(shape) == 4 and shape[-1] == 3 for shape in shapes) == (component == "unet")


def test_other_loaders_without_metadata_meet_the_right_strength(
    exported: tuple[Path, Path, str], tmp_path: Path
) -> None:
    base, final, component = exported
    pipeline = DiffusionPipeline.from_pretrained(base)
    if not hasattr(pipeline, "load_lora_weights"):
        return
    save_file(load_file(final / "adapter" / "pytorch_lora_weights.safetensors"), tmp_path / "bare.safetensors")
    pipeline.load_lora_weights(str(tmp_path), weight_name="bare.safetensors")
    pipeline.fuse_lora(components=[component])
    pipeline.unload_lora_weights()
    assert_same(weights_of(final, component), dict(getattr(pipeline, component).state_dict()), 1e-5)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[DiffusersReference, Path]:
    """A reference, and the folder of an adapter on its network."""
    reference = DiffusersReference.load(str(write_twin("StableDiffusionPipeline", tmp_path / "base")))
    network = lora.adapted(reference.network, AdapterSettings(RANK, ALPHA))
    lora.save_adapter(network, tmp_path / "adapter")
    return reference, tmp_path / "adapter"


def test_an_adapter_of_an_older_run_comes_back(saved: tuple[DiffusersReference, Path]) -> None:
    reference, folder = saved
    ours = lora.load_adapter(reference.network, folder)
    file = folder / "adapter_model.safetensors"
    bare = {name.removeprefix(lora.PEFT_PREFIX): value for name, value in load_file(file).items() if value.numel()}
    save_file(bare, file)
    older = lora.load_adapter(reference.network, folder)
    states = [{name: value for name, value in each.state_dict().items() if "lora_" in name} for each in (ours, older)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(state, states[1][name]) for name, state in states[0].items())


@pytest.mark.parametrize("harm", ["half", "shape", "other"])
def test_an_adapter_that_does_not_fit_is_refused(saved: tuple[DiffusersReference, Path], harm: str) -> None:
    reference, folder = saved
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in sorted(tensors) if ".lora_B." in name)
    if harm == "half":
        del tensors[name]
    elif harm == "shape":
        tensors[name] = torch.zeros(3, RANK)
    else:
        tensors["base_model.model.nowhere.lora_A.weight"] = torch.zeros(RANK, 3)
    save_file(tensors, file)
    bare = "nowhere.lora_A.weight" if harm == "other" else name.removeprefix(lora.PEFT_PREFIX)
    with pytest.raises(
        RequestError, match=rf"does not fit UNet2DConditionModel: {bare} is .* \(one of 1 that differ\)"
    ):
        lora.load_adapter(reference.network, folder)


def test_the_base_is_named_by_its_hub_id_alone(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "1"
    twin = write_twin("StableDiffusionPipeline", snapshot)
    reference = DiffusersReference.load(str(twin))
    linked, copied = tmp_path / "linked", tmp_path / "copied"
    linked.symlink_to(twin / "unet")
    shutil.copytree(twin / "unet", copied)
    for weights, named in ((twin / "unet", "owner/name"), (linked, "owner/name"), (copied, None)):
        generator = replace(DiffusersGenerator.load(str(twin)), weights=weights)
        generator.adapt(AdapterSettings(RANK, ALPHA), reference)
        lora.save_adapter(generator.network, tmp_path / "adapter")
        config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == named
        PeftModel.from_pretrained(load_component(twin, "unet"), str(tmp_path / "adapter"))


@pytest.mark.parametrize(("size", "precision"), [(0.1, torch.bfloat16), (1e-4, torch.float32)])
def test_a_half_precision_base_is_merged_in_its_own_precision_where_the_update_survives_it(
    tmp_path: Path, size: float, precision: torch.dtype
) -> None:
    reference = DiffusersReference.load(str(write_twin("FluxPipeline", tmp_path / "base")), dtype=torch.bfloat16)
    network = lora.adapted(reference.network, AdapterSettings(RANK, ALPHA))
    assert lora.rounding(network) == 0.0  # nothing is added yet
    with torch.no_grad():
        for parameter in trainable_parameters(network):
            parameter.add_(size)
    plain, exact = lora.merged(network), lora.merged(network, torch.float32)
    assert {item.dtype for item in plain.parameters()} == {precision}
    assert all(torch.equal(item, exact.get_parameter(name).to(precision)) for name, item in plain.named_parameters())
    assert {item.dtype for item in exact.parameters()} == {torch.float32}
    names = [name for name, _ in reference.network.named_parameters()]
    before = torch.cat([reference.network.get_parameter(name).float().flatten() for name in names])
    rounded, merged = (
        torch.cat([item.get_parameter(name).to(torch.bfloat16).float().flatten() for name in names])
        if item is plain
        else torch.cat([item.get_parameter(name).flatten() for name in names])
        for item in (plain, exact)
    )
    share = float((rounded - merged).norm() / (merged - before).norm())
    assert lora.rounding(network) == pytest.approx(share, rel=0.05)
    assert (share <= lora.LARGEST_ROUNDING) is (precision == torch.bfloat16)
