"""LoRA over shared weights: three networks, one set of tensors, and gradients that are right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft.tuners import lora as peft_lora
from torch import Tensor, nn

from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.models import lora
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.lora import AdapterSettings, adapted, load_adapter, merged, save_adapter
from dipp_toolkit.models.lora_layers import PairedConv2d, PairedLinear, forget_pairs
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.models.weight_sharing import (
    load_trainable_state,
    trainable_parameters,
    trainable_state,
    weight_sharing_copy,
)
from dipp_toolkit.utils.precision import pass_autocast
from tiny import PROMPTS

SMALL = AdapterSettings(rank=4, alpha=8.0)
CLASSES = ("PixArtAlphaPipeline", "StableDiffusionPipeline")


@pytest.fixture(scope="module", params=CLASSES)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DiffusersReference:
    return DiffusersReference.load(str(write_twin(request.param, tmp_path_factory.mktemp("twin") / "twin")))


def generator_of(reference: DiffusersReference) -> DiffusersGenerator:
    generator = DiffusersGenerator.load(str(reference.folder))
    generator.adapt(SMALL, reference)
    return generator


def wake(network: nn.Module) -> None:
    """Adapters begin at zero; give them something to say."""
    with torch.no_grad():
        for parameter in trainable_parameters(network):
            parameter.add_(0.1 * torch.randn_like(parameter))


def test_a_generator_assistant_and_reference_hold_one_set_of_weights(reference: DiffusersReference) -> None:
    generator, assistant = generator_of(reference), adapted(reference.network, SMALL, seed=1)
    own = {parameter.data_ptr() for parameter in reference.network.parameters()}
    for network in (generator.network, assistant):
        frozen = {parameter.data_ptr() for parameter in network.parameters() if not parameter.requires_grad}
        assert frozen == own
        trained = trainable_parameters(network)
        assert trained
        assert not {item.data_ptr() for item in trained} & own
    both = [
        {id(parameter) for parameter in trainable_parameters(network)} for network in (generator.network, assistant)
    ]
    assert not both[0] & both[1]


def test_an_adapter_begins_as_the_network_it_adapts(reference: DiffusersReference, noise: Tensor) -> None:
    t, condition = torch.full((len(noise),), 0.6), reference.encode(PROMPTS)
    generator = generator_of(reference).at(0.6)
    plain = reference.denoiser.predict_x0(noise, t, condition)
    torch.testing.assert_close(generator.generate(noise, condition), plain, rtol=1e-5, atol=1e-5)
    wake(generator.network)
    assert (generator.generate(noise, condition) - plain).abs().max() > 1e-3
    assert torch.equal(reference.denoiser.predict_x0(noise, t, condition), plain)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_the_adapter_alone_and_equal_those_through_merged_weights(
    reference: DiffusersReference, noise: Tensor, checkpointing: bool
) -> None:
    generator = generator_of(reference).at(0.6)
    wake(generator.network)
    if checkpointing:
        generator.network.enable_gradient_checkpointing()
    condition = reference.encode(PROMPTS)
    generator.generate(noise, condition).square().mean().backward()
    assert all(parameter.grad is None for parameter in reference.network.parameters())
    assert all(parameter.grad is not None for parameter in trainable_parameters(generator.network))

    # dL/dB = (a/r) dL/dW A^T: hold one adapter against the full weight's gradient.
    plain = merged(generator.network).requires_grad_(True)
    t = torch.full((len(noise),), 0.6)
    generator._around(plain).predict_x0(noise, t, condition).square().mean().backward()
    name = next(
        item for item in lora.target_layers(reference.network, SMALL.rank)
        if isinstance(reference.network.get_submodule(item), nn.Linear)
    )  # fmt: skip
    layer = generator.network.get_submodule(name)
    full = plain.get_submodule(name).weight.grad
    expected = SMALL.alpha / SMALL.rank * full @ layer.lora_A["default"].weight.T
    torch.testing.assert_close(layer.lora_B["default"].weight.grad, expected, rtol=1e-4, atol=1e-6)


def test_merging_keeps_the_function_and_the_plain_names(reference: DiffusersReference, noise: Tensor) -> None:
    generator = generator_of(reference).at(0.6)
    wake(generator.network)
    condition = reference.encode(PROMPTS)
    plain = merged(generator.network)
    assert plain.state_dict().keys() == reference.network.state_dict().keys()
    t = torch.full((len(noise),), 0.6)
    with torch.no_grad():
        ours = generator._around(plain).predict_x0(noise, t, condition)
        torch.testing.assert_close(ours, generator.generate(noise, condition), rtol=1e-4, atol=1e-4)
    assert lora.is_adapted(generator.network)


def test_a_saved_adapter_comes_back(reference: DiffusersReference, noise: Tensor, tmp_path: Path) -> None:
    network = adapted(reference.network, SMALL)
    wake(network)
    save_adapter(network, tmp_path / "adapter")
    again = load_adapter(reference.network, tmp_path / "adapter")
    first, second = trainable_state(network), trainable_state(again)
    assert first.keys() == second.keys()
    parameters = dict(network.named_parameters())
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, parameters[name])
    with pytest.raises(RequestError, match=r"adapter_config\.json is missing"):
        load_adapter(reference.network, tmp_path)


def test_a_rank_that_saves_nothing_is_refused(reference: DiffusersReference) -> None:
    with pytest.raises(RequestError, match=r"No layer of .* is wider than lora_rank 4096"):
        adapted(reference.network, AdapterSettings(rank=4096))


def test_only_what_is_trained_is_saved(reference: DiffusersReference) -> None:
    network = adapted(reference.network, SMALL)
    state = {name: value.clone() for name, value in trainable_state(network).items()}
    names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert names <= state.keys()
    assert not state.keys() & {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    wake(network)
    load_trainable_state(network, state)
    assert all(torch.equal(value, state[name]) for name, value in trainable_state(network).items())
    with pytest.raises(RunError, match="do not fit the network"):
        load_trainable_state(network, {"other": torch.zeros(1)})


def test_a_sharing_copy_shares_buffers_too() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    copied = weight_sharing_copy(network)
    assert copied is not network
    assert copied[1] is not network[1]
    held = [[*item.parameters(), *item.buffers()] for item in (copied, network)]
    assert all(mine is theirs for mine, theirs in zip(*held, strict=True))


def test_inputs_in_half_precision_are_not_kept_twice(reference: DiffusersReference, noise: Tensor) -> None:
    """An adapter beside a layer reads the input that the layer reads, and peft's own way a widened copy."""

    def found(widened: bool) -> tuple[list[Tensor], int]:
        generator, kept = generator_of(reference).at(0.6), dict[int, int]()
        torch.manual_seed(4)
        wake(generator.network)
        for layer in generator.network.modules():
            if widened and hasattr(layer, "cast_input_dtype_enabled"):
                layer.cast_input_dtype_enabled = True
                layer.__class__ = {PairedLinear: peft_lora.Linear, PairedConv2d: peft_lora.Conv2d}[type(layer)]
        if widened:
            forget_pairs(generator.network)

        def note(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        condition = reference.encode(PROMPTS)
        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with hooks, pass_autocast("cpu", torch.bfloat16):
            output = generator.generate(noise, condition)
        output.square().mean().backward()
        return [
            parameter.grad for parameter in trainable_parameters(generator.network) if parameter.grad is not None
        ], sum(kept.values())

    (ours, less), (theirs, more) = found(False), found(True)
    assert less < 0.9 * more
    both = [torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (ours, theirs)]
    assert torch.cosine_similarity(*both, dim=0) > 0.995
