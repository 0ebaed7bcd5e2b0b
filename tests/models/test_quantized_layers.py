"""Frozen weights in 8 and 4 bits: what passes make of them, what is trained over them, and what is exported."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dipp_toolkit import TrainConfig
from dipp_toolkit.distributed import Processes
from dipp_toolkit.distributed.sharding import Sharding
from dipp_toolkit.errors import PluginError, RequestError, RunError
from dipp_toolkit.models import lora, quantized_layers
from dipp_toolkit.models.activation_offload import is_moved
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.lora import AdapterSettings
from dipp_toolkit.models.quantized_layers import KINDS, QuantizedLinear, is_quantized, quantize
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.models.weight_sharing import trainable_state, weight_sharing_copy
from dipp_toolkit.training.run import train
from dipp_toolkit.training.setup.assembly import assemble, check_frozen_precision
from dipp_toolkit.training.setup.resolve import resolve
from tiny_runs import file_of_prompts

LARGEST_ERROR = {"int8": 0.012, "nf4": 0.1}
"""Root mean square of what normally distributed weights lose, as a share of theirs."""
BLUE = "def blue(images, prompts):\n    return images[:, 2].mean((1, 2))\n"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def library() -> None:
    pytest.importorskip("bitsandbytes", reason="pip install 'dipp-toolkit[8bit]'")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks have tiny layers."""
    monkeypatch.setattr(quantized_layers, "SMALLEST", 64)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_twin("PixArtAlphaPipeline", tmp_path_factory.mktemp("twin") / "twin")


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    drawn = nn.Sequential(nn.Linear(96, 128), nn.GELU(), nn.Linear(128, 64, bias=False))
    for layer in (drawn[0], drawn[2]):
        nn.init.normal_(layer.weight, std=0.1)
    return drawn


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_a_pass_and_its_gradient_are_those_of_the_rounded_weights(kind: Any, autocast: torch.dtype | None) -> None:
    whole, network = layers(), layers()
    quantize(network, kind)
    rounded = layers().requires_grad_(False)
    for index in (0, 2):
        lost = network[index].weight - whole[index].weight.detach()
        assert 0 < lost.square().mean().sqrt() / whole[index].weight.std() < LARGEST_ERROR[kind]
        rounded[index].weight.copy_(network[index].weight)

    def felt(layer: nn.Module) -> tuple[Tensor, Tensor]:
        x = torch.randn(2, 5, 96, generator=torch.Generator().manual_seed(1), requires_grad=True)
        with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
            output = layer(x)
        return output, torch.autograd.grad(output.float().square().sum(), x)[0]

    (output, gradient), (expected, of_rounded) = felt(network), felt(rounded)
    assert output.dtype == expected.dtype
    assert torch.equal(output, expected)
    torch.testing.assert_close(gradient, of_rounded, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("kind", KINDS)
def test_graphs_keep_codes_and_not_weights(kind: Any) -> None:
    network, kept = layers(), []
    quantize(network, kind)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (kept.append(tensor), tensor)[1], lambda kept: kept):
        network(torch.ones(1, 96, requires_grad=True))
    assert not any(tensor.is_floating_point() and tensor.numel() >= 64 * 128 for tensor in kept)
    assert not any(is_moved(tensor) for tensor in kept), "codes stay on the device"


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_shared_survive_casts_and_are_in_no_checkpoint(kind: Any) -> None:
    network = layers()
    quantize(network, kind)
    twin = weight_sharing_copy(network)
    assert all(ours is theirs for ours, theirs in zip(twin.parameters(), network.parameters(), strict=True))
    assert trainable_state(network) == {}
    cast = copy.deepcopy(network).bfloat16()
    assert torch.equal(cast[0].weight, network[0].weight)
    quantize_again = layers()
    quantize(quantize_again, kind)
    assert torch.equal(quantize_again[0].codes, network[0].codes)
    with pytest.raises(RequestError, match=r"Sequential has none\. Set frozen_precision=bf16"):
        quantize(nn.Sequential(nn.Linear(4, 4)), kind)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_compile_whole(kind: Any) -> None:
    network = layers()
    quantize(network, kind)
    compiled = torch.compile(network, fullgraph=True, dynamic=False, backend="aot_eager")
    x = torch.randn(3, 96, requires_grad=True)
    expected = torch.autograd.grad(network(x).sum(), x)[0]
    torch.testing.assert_close(torch.autograd.grad(compiled(x).sum(), x)[0], expected)


@pytest.mark.usefixtures("library", "small")
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_over_codes_is_exported_into_the_weights_as_they_were(kind: Any, twin: Path, tmp_path: Path) -> None:
    reference = DiffusersReference.load(str(twin), torch.bfloat16)
    quantize(reference.network, kind)
    generator = DiffusersGenerator.load(str(twin))
    generator.adapt(AdapterSettings(2, 2.0), reference)
    assert is_quantized(generator.network)
    assert not any(
        isinstance(layer, QuantizedLinear) and layer.weight.requires_grad for layer in generator.network.modules()
    )
    with torch.no_grad():
        for name, parameter in generator.network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    with pytest.raises(RunError, match="cannot be merged into weights of 8 or 4 bits"):
        lora.merged(generator.network)
    generator.save_pretrained(tmp_path / "out")
    exported = load_file(tmp_path / "out" / "transformer" / WEIGHTS)
    began = load_file(twin / "transformer" / WEIGHTS)
    plain = DiffusersReference.load(str(twin), torch.bfloat16)
    over = lora.merged(lora.over(generator.network, plain.network))
    assert all(torch.equal(exported[name], value) for name, value in over.state_dict().items())
    assert exported.keys() == began.keys()
    for name, layer in generator.network.named_modules():
        if hasattr(layer, "lora_A"):
            expected = began[f"{name}.weight"].bfloat16().float() + layer.get_delta_weight("default").detach()
            torch.testing.assert_close(exported[f"{name}.weight"].float(), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.usefixtures("library", "small")
def test_all_weights_start_whole_over_a_quantised_reference(twin: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "generator": f"diffusers:{twin}", "reference": f"diffusers:{twin}", "prompts": str(file_of_prompts(tmp_path)),
        "prompt_cache": tmp_path / "cache", "device": "cpu", "batch_size": 2, "eval_count": 2, "assistant_warmup": 0,
    }  # fmt: skip
    parts = assemble(resolve(TrainConfig(frozen_precision="nf4", **settings)))
    plain = assemble(resolve(TrainConfig(frozen_precision="bf16", **settings)))
    assert is_quantized(parts.reference.denoiser.network)
    for ours, theirs in ((parts.generator, plain.generator), (parts.assistant.denoiser, plain.assistant.denoiser)):
        for own, expected in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
            assert own.requires_grad and own.dtype == torch.float32
            assert torch.equal(own, expected)


@pytest.mark.usefixtures("library", "small")
@pytest.mark.parametrize(("kind", "mode"), [("nf4", "lora"), ("int8", "full")])
def test_runs_train_resume_and_export(kind: str, mode: str, twin: Path, tmp_path: Path) -> None:
    prompts = str(file_of_prompts(tmp_path))
    (tmp_path / "blue.py").write_text(BLUE)

    def run(steps: int, out: str, **more: Any) -> dict[str, Tensor]:
        config = TrainConfig(
            generator=f"diffusers:{twin}", reference=f"diffusers:{twin}", prompts=prompts,
            rewards={f"{tmp_path / 'blue.py'}:blue": 1.0}, prompt_cache=tmp_path / "cache", mode=mode, lora_rank=2,
            frozen_precision=kind, precision="fp32", device="cpu", batch_size=2, steps=steps, eval_count=2,
            reference_steps=2, checkpoint_every=1, assistant_warmup=0, monitor_every=0, diagnose_every=0,
            reward_scale=1.0, out=tmp_path / out, **more,
        )  # fmt: skip
        return load_file(train(config).folder / "final" / "transformer" / WEIGHTS)

    whole = run(2, "whole")
    run(1, "parted")
    again = run(2, "parted", resume=True)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert whole.keys() == load_file(twin / "transformer" / WEIGHTS).keys()


def test_the_missing_package_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    words = r"frozen_precision=nf4 needs bitsandbytes, which is not installed\. Run: pip install 'dipp-toolkit\[8bit\]'"
    with pytest.raises(PluginError, match=words):
        assemble(
            TrainConfig(generator="nowhere", frozen_precision="nf4", device="cpu", precision="fp32", compile="off")
        )


def test_codes_cannot_be_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dipp_toolkit.training.setup.assembly.check_library", lambda kind: None)
    sharding = Sharding(Processes(), torch.device("cpu"), None)
    with pytest.raises(RequestError, match="cannot be sharded"):
        check_frozen_precision(TrainConfig(frozen_precision="int8"), sharding)
    check_frozen_precision(TrainConfig(frozen_precision="int8"))
    check_frozen_precision(TrainConfig(frozen_precision="bf16"), sharding)
