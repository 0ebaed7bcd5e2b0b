"""LoRA files as start weights: in every layout the sum is what stock diffusers, or peft, makes of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor

import lora_files
from dipp_toolkit.models.blueprints import find_pipeline
from dipp_toolkit.models.components import empty_component
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.lora import AdapterSettings
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.start_weights.lora import fused_weights, layers_of
from dipp_toolkit.models.start_weights.lora_file import LoraFile
from dipp_toolkit.models.start_weights.source import parse_source
from dipp_toolkit.models.weight_sharing import trainable_parameters
from lora_files import added, peft_folder, random_pairs, twins_below, write

RANK, ALPHA, SCALE = 4, 10.0, 0.3
COMPONENTS = {
    "PixArtAlphaPipeline": "transformer",
    "StableDiffusionPipeline": "unet",
    "StableDiffusionXLPipeline": "unet",
    "StableDiffusion3Pipeline": "transformer",
    "FluxPipeline": "transformer",
}
ATTENTION = r"attn[12]\.(to_q|to_k|to_v|to_out\.0)$"
KOHYA = r"^(?!add_embedding)"
"""diffusers cannot tell the two layers of the others apart by their names in kohya's layout."""
FLUX_KOHYA = r"^transformer_blocks|^single.*(proj_out|norm)"
"""The projections that kohya fuses in single blocks are cut at their published sizes; see below."""
FLUX_XLABS = r"^transformer_blocks.*attn"
UNET = [
    (lora_files.diffusers, "."),
    (lora_files.diffusers_of_2023, "."),
    (lora_files.attention_processors, ATTENTION),
    (lora_files.kohya, KOHYA),
]
LAYOUTS: dict[str, list[tuple[Any, str]]] = {
    "StableDiffusionPipeline": UNET,
    "StableDiffusionXLPipeline": [*UNET, (lora_files.kohya_sgm, KOHYA)],
    "StableDiffusion3Pipeline": [(lora_files.diffusers, ".")],
    "FluxPipeline": [
        (lora_files.diffusers, "."), (lora_files.flux_kohya, FLUX_KOHYA), (lora_files.flux_xlabs, FLUX_XLABS),
    ],
}  # fmt: skip
CASES = [(pipeline, *layout) for pipeline, layouts in LAYOUTS.items() for layout in layouts]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return twins_below(tmp_path_factory.mktemp("twins"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def network_of(folder: Path) -> Any:
    return network_of_path(folder, COMPONENTS[folder.name])


def network_of_path(folder: Path, component: str) -> Any:
    return getattr(DiffusionPipeline.from_pretrained(folder), component)


def ours(folder: Path, *addresses: str) -> dict[str, Tensor]:
    component = COMPONENTS[folder.name]
    fused = fused_weights(folder, component, folder / component, addresses)
    return load_file(fused / "diffusion_pytorch_model.safetensors")


def stock(folder: Path, *files: tuple[Path, float]) -> dict[str, Tensor]:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    for number, (path, _) in enumerate(files):
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=f"lora_{number}")
    pipeline.set_adapters([f"lora_{number}" for number in range(len(files))], [scale for _, scale in files])
    pipeline.fuse_lora(components=[COMPONENTS[folder.name]])
    pipeline.unload_lora_weights()
    return dict(getattr(pipeline, COMPONENTS[folder.name]).state_dict())


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor], limit: float = 1e-6) -> None:
    assert first.keys() == second.keys()
    differences = {name: float((value - second[name]).abs().max()) for name, value in first.items()}
    assert max(differences.values()) <= limit, {
        name: difference for name, difference in differences.items() if difference > limit
    }


@pytest.mark.first_case
@pytest.mark.parametrize(
    ("pipeline", "layout", "pattern"), CASES, ids=[f"{pipeline}-{layout.__name__}" for pipeline, layout, _ in CASES]
)
def test_each_layout_is_fused_as_stock_diffusers_fuses_it(
    twins: Callable[[str], Path], tmp_path: Path, pipeline: str, layout: Any, pattern: str
) -> None:
    folder = twins(pipeline)
    network = network_of(folder)
    pairs = random_pairs(network, RANK, pattern)
    if layout in (lora_files.flux_kohya, lora_files.flux_xlabs):
        pairs = lora_files.shared_downs(pairs)
    path = write(tmp_path / "lora.safetensors", layout, pairs, ALPHA, COMPONENTS[pipeline])
    fused = ours(folder, f"{path}={SCALE}")
    assert_same(fused, stock(folder, (path, SCALE)))
    assert_same(fused, added(network.state_dict(), pairs, SCALE * ALPHA / RANK))


@pytest.mark.parametrize("pipeline", COMPONENTS)
def test_a_peft_folder_is_fused_as_peft_merges_it(twins: Callable[[str], Path], tmp_path: Path, pipeline: str) -> None:
    folder = twins(pipeline)
    network = network_of(folder)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    pairs = random_pairs(network, RANK)
    adapter = peft_folder(tmp_path / "adapter", pairs, ALPHA)
    model = PeftModel.from_pretrained(network, str(adapter))
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.set_scale("default", SCALE)
    fused = ours(folder, f"{adapter}={SCALE}")
    assert_same(fused, dict(model.merge_and_unload().state_dict()))
    assert_same(fused, added(weights, pairs, SCALE * ALPHA / RANK))


def test_several_files_are_added_in_their_order_and_layouts(twins: Callable[[str], Path], tmp_path: Path) -> None:
    folder = twins("StableDiffusionXLPipeline")
    network = network_of(folder)
    first = write(tmp_path / "1.safetensors", lora_files.kohya_sgm, random_pairs(network, 4, KOHYA), 10.0, "unet")
    second = write(
        tmp_path / "2.safetensors", lora_files.diffusers, random_pairs(network, 2, "attn", seed=1), 3.0, "unet"
    )
    third = write(
        tmp_path / "3.safetensors", lora_files.diffusers, random_pairs(network, 3, "conv", seed=2), 3.0, "unet"
    )
    fused = ours(folder, f"{first}=0.5", f"{second}=-1.5", str(third))
    assert_same(fused, stock(folder, (first, 0.5), (second, -1.5), (third, 1.0)))


def test_every_layer_has_its_own_rank_and_alpha(twins: Callable[[str], Path], tmp_path: Path) -> None:
    """What stock diffusers gives the attention layers of such a kohya file is the most frequent alpha of all."""
    folder = twins("StableDiffusionPipeline")
    network = network_of(folder)
    expected, tensors = dict(network.state_dict()), {}
    names = [*random_pairs(network, 1)]
    for number, name in enumerate(names):
        pairs, alpha = random_pairs(network, 2 + number % 3, f"^{re.escape(name)}$", number), 1.0 + number % 4
        tensors |= lora_files.kohya(pairs, alpha, "unet")[0]
        expected = added(expected, pairs, alpha / (2 + number % 3))
    path = write(tmp_path / "lora.safetensors", lambda: (tensors, {}))
    assert_same(ours(folder, str(path)), expected)


@pytest.mark.parametrize("rslora", [False, True])
def test_patterns_of_ranks_and_alphas_are_followed(twins: Callable[[str], Path], tmp_path: Path, rslora: bool) -> None:
    folder = twins("StableDiffusion3Pipeline")
    network = network_of(folder)
    queries, keys = random_pairs(network, 4, r"attn\.to_q$"), random_pairs(network, 2, r"attn\.to_k$", 1)
    patterns: dict[str, Any] = {"use_rslora": True} if rslora else {"alpha_pattern": {"attn.to_k": 7.0}}
    adapter = peft_folder(tmp_path / "adapter", queries | keys, ALPHA, rank_pattern={"attn.to_k": 2}, **patterns)
    weights = dict(network.state_dict())
    strengths = (ALPHA / 2, ALPHA / 2**0.5) if rslora else (ALPHA / 4, 7.0 / 2)
    assert_same(ours(folder, str(adapter)), added(added(weights, queries, strengths[0]), keys, strengths[1]))


def test_half_precision_files_are_added_in_float32(twins: Callable[[str], Path], tmp_path: Path) -> None:
    folder = twins("StableDiffusionPipeline")
    network = network_of(folder)
    pairs = {name: (down.half(), up.half()) for name, (down, up) in random_pairs(network, RANK, "attn").items()}
    path = write(tmp_path / "lora.safetensors", lora_files.kohya, pairs, ALPHA, "unet")
    exact = {name: (down.float(), up.float()) for name, (down, up) in pairs.items()}
    assert_same(ours(folder, str(path)), added(network.state_dict(), exact, ALPHA / RANK))


@pytest.mark.parametrize("nested", [False, True])
def test_a_pickled_state_is_read_without_running_anything(
    twins: Callable[[str], Path], tmp_path: Path, nested: bool
) -> None:
    folder = twins("StableDiffusionPipeline")
    network = network_of(folder)
    pairs = random_pairs(network, RANK, "attn")
    tensors = lora_files.kohya(pairs, ALPHA, "unet")[0]
    torch.save({"state_dict": tensors} if nested else tensors, tmp_path / "lora.ckpt")
    assert_same(ours(folder, str(tmp_path / "lora.ckpt")), added(network.state_dict(), pairs, ALPHA / RANK))


def test_the_export_of_a_lora_run_goes_in_again(twins: Callable[[str], Path], tmp_path: Path) -> None:
    folder = twins("FluxPipeline")
    generator = DiffusersGenerator.load(str(folder), 1.0)
    generator.adapt(AdapterSettings(RANK, ALPHA), DiffusersReference.load(str(folder)))
    with torch.no_grad():
        for parameter in trainable_parameters(generator.network):
            parameter.add_(0.1)
    generator.save_pretrained(tmp_path / "final")
    expected = dict(network_of_path(tmp_path / "final", "transformer").state_dict())
    for name in ("", "/adapter_model.safetensors", "/pytorch_lora_weights.safetensors"):
        assert_same(ours(folder, f"{tmp_path}/final/adapter{name}"), expected)


@pytest.mark.parametrize(
    ("name", "pipeline", "layout", "pattern"),
    [
        ("sd15", "StableDiffusionPipeline", lora_files.kohya, "."),
        ("sd15", "StableDiffusionPipeline", lora_files.diffusers_of_2023, "."),
        ("sdxl", "StableDiffusionXLPipeline", lora_files.kohya, "."),
        ("sdxl", "StableDiffusionXLPipeline", lora_files.kohya_sgm_of_two_layers, KOHYA),
        ("sd3", "StableDiffusion3Pipeline", lora_files.diffusers, "."),
        ("flux", "FluxPipeline", lora_files.flux_kohya, "transformer_blocks"),
    ],
)
def test_every_layer_of_the_published_networks_is_known_in_each_layout(
    tmp_path: Path, name: str, pipeline: str, layout: Any, pattern: str
) -> None:
    """At full size, without the network's weights: only the keys and shapes are its own."""
    component = COMPONENTS[pipeline]
    network = empty_component(find_pipeline(name).folder, component)
    pairs = random_pairs(network, 1, pattern)
    if layout is lora_files.flux_kohya:
        pairs = lora_files.shared_downs(pairs)
    path = write(tmp_path / "lora.safetensors", layout, pairs, 0.5, component)
    layers = layers_of(LoraFile.find(parse_source(str(path))), network, getattr(diffusers, pipeline), component)
    assert layers.keys() == pairs.keys()
    for layer, (down, up) in pairs.items():
        assert torch.equal(layers[layer][0], down), layer
        torch.testing.assert_close(layers[layer][1], 0.5 * up)


def test_the_projections_that_flux_fuses_in_single_blocks_are_cut(tmp_path: Path) -> None:
    from diffusers import FluxPipeline, FluxTransformer2DModel

    with torch.device("meta"):
        network = FluxTransformer2DModel(num_layers=0, num_single_layers=1)
    down, up = torch.randn(2, 3072), torch.randn(3 * 3072 + 12288, 2)
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(3.0)}
    path = write(
        tmp_path / "lora.safetensors",
        lambda: ({f"lora_unet_single_blocks_0_linear1.{name}": tensor for name, tensor in tensors.items()}, {}),
    )
    layers = layers_of(LoraFile.find(parse_source(str(path))), network, FluxPipeline, "transformer")
    names = [f"single_transformer_blocks.0.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    assert [*layers] == names
    for name, part in zip(names, up.split([3072, 3072, 3072, 12288]), strict=True):
        torch.testing.assert_close(layers[name][0], down, rtol=0, atol=0)
        torch.testing.assert_close(layers[name][1], part * 1.5, rtol=0, atol=0)
