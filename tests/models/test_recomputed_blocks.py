"""Blocks recomputed on the way back, in networks that diffusers does not do it for: the same gradients, less kept."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers import ChromaTransformer2DModel
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from dipp_chroma.family import ChromaFamily
from dipp_hunyuan_dit.family import write_hunyuan_dit_twin
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.lora import AdapterSettings, adapted
from dipp_toolkit.models.recomputed_blocks import Recomputed, recompute_blocks
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.training.assistant import LearnedAssistant
from dipp_toolkit.training.setup.assembly import assemble
from tiny import PROMPTS


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> DiffusersReference:
    return DiffusersReference.load(str(write_hunyuan_dit_twin(tmp_path_factory.mktemp("hunyuan") / "twin")))


def gradients(reference: DiffusersReference, network: nn.Module, noise: Tensor) -> tuple[dict[str, Tensor], int]:
    """Of every parameter, and how many numbers a pass keeps for them."""
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    denoiser = copy.copy(reference.denoiser)
    object.__setattr__(denoiser, "network", network)
    with saved_tensors_hooks(count, lambda tensor: tensor):
        x0 = denoiser.predict_x0(noise, torch.full((len(noise),), 0.6), reference.encode(PROMPTS))
    x0.square().sum().backward()
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}, kept


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_gradients_are_the_same_and_less_is_kept(mode: str, reference: DiffusersReference, noise: Tensor) -> None:
    def fresh() -> nn.Module:
        if mode == "lora":
            return adapted(reference.network, AdapterSettings(2, 2.0), seed=0)
        return copy.deepcopy(reference.network).requires_grad_(True)

    plain, kept = gradients(reference, fresh(), noise)
    network = fresh()
    recompute_blocks(network, reference.family)
    recompute_blocks(network, reference.family)
    recomputed, less = gradients(reference, network, noise)
    assert plain.keys() == recomputed.keys() and plain
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-5, atol=1e-6)
    assert less < kept / 3
    assert sum(isinstance(module, Recomputed) for module in network.modules()) == 4


def test_a_copy_computes_with_its_own_weights(reference: DiffusersReference) -> None:
    network: Any = copy.deepcopy(reference.network).requires_grad_(True)
    recompute_blocks(network, reference.family)
    assert network.state_dict().keys() == reference.network.state_dict().keys()
    other = copy.deepcopy(network)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    x = torch.randn(1, 16, 32)
    temb, tokens = torch.randn(1, 32), torch.randn(1, 5, 24)
    assert torch.equal(other.blocks[0](x, temb=temb, encoder_hidden_states=tokens), x)
    assert not torch.equal(network.blocks[0](x, temb=temb, encoder_hidden_states=tokens), x)


def test_where_diffusers_has_its_own_way_it_is_used(tmp_path: Path) -> None:
    reference = DiffusersReference.load(str(write_twin("PixArtAlphaPipeline", tmp_path / "twin")))
    network: Any = reference.network
    recompute_blocks(network, reference.family)
    assert network.gradient_checkpointing
    assert not any(isinstance(module, Recomputed) for module in network.modules())


def test_a_mask_reaches_recomputed_blocks_whose_own_checkpointing_drops_it() -> None:
    torch.manual_seed(0)
    network: Any = ChromaTransformer2DModel(
        in_channels=8, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=8, axes_dims_rope=(4, 6, 6), approximator_num_channels=16, approximator_hidden_dim=8,
    )  # fmt: skip
    mask = torch.cat([torch.arange(6) < torch.tensor([[2], [5]]), torch.ones(2, 4, dtype=torch.bool)], dim=1)
    inputs = {
        "hidden_states": torch.randn(2, 4, 8), "encoder_hidden_states": torch.randn(2, 6, 8),
        "timestep": torch.tensor([0.3, 0.8]), "img_ids": torch.zeros(4, 3), "txt_ids": torch.zeros(6, 3),
    }  # fmt: skip
    plain = network(**inputs, attention_mask=mask).sample
    assert (network(**inputs).sample - plain).abs().max() > 1e-4
    recompute_blocks(network, ChromaFamily())
    torch.testing.assert_close(network(**inputs, attention_mask=mask).sample, plain)
    assert sum(isinstance(module, Recomputed) for module in network.modules()) == 3


def test_a_training_asks_the_family_of_each_network(tmp_path: Path) -> None:
    twin = f"diffusers:{write_twin('ChromaPipeline', tmp_path / 'twin')}"
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    settings = TrainConfig(
        generator=twin, reference=twin, prompts=str(tmp_path / "prompts.txt"), rewards={}, judge=None, device="cpu",
        compile="off", gradient_checkpointing=True, batch_size=2, eval_count=2, out=tmp_path / "run",
    )  # fmt: skip
    parts = assemble(settings)
    assistant = cast(LearnedAssistant, parts.assistant)
    for network in (parts.generator.network, parts.reference.denoiser.network, assistant.denoiser.network):
        assert sum(isinstance(module, Recomputed) for module in network.modules()) == 2


def test_other_networks_are_a_sentence() -> None:
    with pytest.raises(RequestError, match=r"Linear cannot recompute its blocks\. Leave gradient_checkpointing out\."):
        recompute_blocks(nn.Linear(1, 1), None)
