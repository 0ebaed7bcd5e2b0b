"""What the pieces of a step cost, from dry runs of the real networks; equal ones are run once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, cast

import torch
from torch import nn

from ..diffusion.condition import Condition
from ..diffusion.denoiser import Denoiser
from ..diffusion.predictions import prediction_from_config
from ..diffusion.schedules import schedule_from_config
from ..errors import RequestError
from ..models.autoencoding import autoencoding_of
from ..models.blueprints import PipelineBlueprint, RewardBlueprint, find_blueprint, find_pipeline, parameter_count
from ..models.decoding import DecodeOptions, reward_decoder
from ..models.family import BlankConditions
from ..models.files.folders import quiet_loading, resolve_folder
from ..models.files.saved_generators import DIFFUSERS, saved_generator, split_saved
from ..models.quantized_layers import Kind, bytes_of, quantizable
from ..models.recomputed_blocks import recompute_blocks
from ..models.reference import decoder_dtype
from ..registry import get_registry
from ..rewards.fitted_folders import fitted_folder
from ..utils.assignments import is_isolated_name, is_remote_name
from ..utils.image_sizes import Size
from ..utils.imports import is_python_name
from ..utils.json_files import read_json
from ..utils.paths import is_local_name, looks_like_path, user_path
from ..utils.precision import pass_autocast
from .ahead import Remembered
from .dry_run import Cost, DryOffload, Meter, cost_of, dry, faked
from .rehearsals import Rehearsals
from .repeated import abridged, adapted, kinds_of

Slopes = Literal["none", "reference", "both"]
Role = Literal["reference", "generator"]


@dataclass(frozen=True)
class Shape:
    """What decides the networks' dry runs.

    Attributes:
        name: of the pipeline whose network runs.
        mode: `"full"` or `"lora"`.
        rank: of adapters.
        batch: samples a pass.
        dtype: of frozen weights.
        autocast: of passes, None for none.
        checkpointing: whether blocks are recomputed in backward passes.
        gpu: whether they run on one; autocast keeps other dtypes there.
        offload: whether what a graph keeps waits in the host's memory.
        slopes: whose passes on noised samples the terms differentiate with respect to their input: `"none"`,
            `"reference"`, or `"both"` for the assistant's as well.
        role: whether it is the name of a reference or of a generator.
        size: height and width of the latents, where these are not the pipeline's own.
    """

    name: str
    mode: str
    rank: int
    batch: int
    dtype: torch.dtype
    autocast: torch.dtype | None
    checkpointing: bool
    gpu: bool = True
    offload: bool = False
    slopes: Slopes = "none"
    role: Role = "reference"
    size: Size | None = None

    @property
    def blueprint(self) -> PipelineBlueprint:
        """Of the pipeline, at this size."""
        return replace(pipeline_blueprint(self.name, self.role), size=self.size)


INT8_KERNELS, INT8_BYTES = 3, 8
"""bitsandbytes makes an int8 weight again by two products in float32 and a cast, with two float32 weights at once."""


@dataclass(frozen=True)
class QuantizedWeights:
    """A network's weights where those of its linear layers are kept in 8 or 4 bits.

    Attributes:
        kept: bytes of all of them, with what is not quantised in its own dtype.
        largest: bytes that are needed to make the largest one again in a pass.
        launches: kernels that make all of them again.
    """

    kept: int
    largest: int
    launches: int


@dataclass(frozen=True)
class NetworkCosts:
    """The passes of a step.

    Attributes:
        base: parameters of the network.
        trainable: parameters of it, or of an adapter, that are trained.
        divergence: reference and assistant, without a graph, or with that of the passes whose slopes a term takes and
            their way back; what the reference's graph keeps while rewards run is what is kept.
        held: forward pass of a trained network, its graph kept.
        backward: its backward pass, beside the graph and without the gradients that it leaves; both ways of what was
            moved to the host are counted here.
    """

    base: int
    trainable: int
    divergence: Cost
    held: Cost
    backward: Cost

    @property
    def training(self) -> Cost:
        """Forward and backward pass."""
        peak = max(self.held.peak, self.held.kept + self.backward.peak)
        launches = self.held.launches + self.backward.launches
        return Cost(peak, 0, self.held.flops + self.backward.flops, launches, self.backward.moved)

    def with_quantized(self, weights: QuantizedWeights, trained: bool) -> NetworkCosts:
        """The passes, where frozen weights are made again in each.

        Args:
            weights: the frozen ones.
            trained: whether they are those under adapters too, and not of the reference alone.
        """

        def again(cost: Cost, times: int = 1) -> Cost:
            launches = cost.launches + times * weights.launches
            return replace(cost, peak=cost.peak + weights.largest, launches=launches)

        if not trained:
            return replace(self, divergence=again(self.divergence))
        held, backward = again(self.held), again(self.backward)
        return replace(self, divergence=again(self.divergence, 2), held=held, backward=backward)


@dataclass(frozen=True)
class RewardCosts:
    """A reward's score and its gradient.

    Attributes:
        parameters: of its network; None where no blueprint says, and then decoding alone is counted.
        whole: decoding, scoring, and the way back to the latents.
        decode: operations and launches of decoding alone, which rewards of a step share.
        score: operations and launches of the network alone.
        dtype: what the network is kept and runs in, whatever the run's own precision is.
        way_back: operations and launches of the decoder's backward pass alone.
    """

    parameters: int | None
    whole: Cost
    decode: Cost
    score: Cost = field(default_factory=Cost)
    dtype: torch.dtype = torch.float32
    way_back: Cost = field(default_factory=Cost)


def pipeline_blueprint(name: str, kind: Role = "reference") -> PipelineBlueprint:
    """The blueprint of a generator or reference: a registered one, or the configurations of a folder on this machine.

    Args:
        name: a registered name, or a pipeline folder or run folder. Nothing is fetched: a hub id that is not registered
            has no configurations here.
        kind: `"generator"` or `"reference"`.

    Raises:
        RequestError: there is none, or it is a reward's.
    """
    registry = get_registry()
    if kind == "generator":
        saved = saved_generator(name)
        name = split_saved(name)[0] if saved is None else saved.name
    if name in registry.entries["blueprint"]:
        return find_pipeline(name)
    if is_python_name(name):
        raise RequestError(
            f"The {kind} '{name}' has no blueprint to plan with: a plan is made from networks without weights. "
            "Register both names in a plugin, with dipp_register_blueprints, or leave the generator out to plan "
            "the step of its reference."
        )
    if name in registry.entries[kind] or not (name.startswith(DIFFUSERS) or looks_like_path(name)):
        registry.find(kind, name)
        raise RequestError(
            f"The {kind} '{name}' has no blueprint to plan with; those that have: "
            f"{', '.join(sorted(registry.entries[kind].keys() & registry.entries['blueprint'].keys()))}."
        )
    path = name.removeprefix(DIFFUSERS)
    if not user_path(path).exists() and not is_local_name(path):
        raise RequestError(
            f"There is no folder {path} here, and a plan downloads nothing from the hub. Run 'hf download {path} "
            '--include "*.json"\', which gets the configurations without the weights, and give the folder it prints.'
        )
    return PipelineBlueprint(resolve_folder(path), path)


@cache
def parameters_of(reference: str, component: str) -> int:
    """Parameters of a pipeline's component."""
    with torch.device("meta"):
        return parameter_count(pipeline_blueprint(reference).build(component))


@cache
def quantized_weights(
    name: str, kind: Kind, dtype: torch.dtype, passes: torch.dtype, role: Role = "reference"
) -> QuantizedWeights:
    """What a pipeline's network takes with its linear layers quantised.

    Args:
        name: of its blueprint.
        kind: `"int8"` or `"nf4"`.
        dtype: of what is not quantised.
        passes: what weights are made again in.
        role: whether the name is a reference's or a generator's.
    """
    network = whole_network(name, role).network
    sizes = [layer.weight.numel() for layer in quantizable(network)]
    rows = sum(layer.out_features for layer in quantizable(network))
    rest = parameter_count(network) - sum(sizes)
    kept = bytes_of(sum(sizes), rows, kind) + rest * dtype.itemsize
    largest, kernels = max(sizes, default=0), 1 if kind == "nf4" else INT8_KERNELS
    return QuantizedWeights(kept, largest * (passes.itemsize if kind == "nf4" else INT8_BYTES), kernels * len(sizes))


_REHEARSED: dict[bool, dict[object, Any]] = {True: {}, False: {}}
"""Blocks that were run, on a GPU and elsewhere: networks of one architecture have many in common."""

_DIVERGENCES: dict[tuple[Shape, float], Cost] = {}


@dataclass(frozen=True)
class NetworkSizes:
    """Parameters of a network, all of them and those of it, or of an adapter, that are trained."""

    base: int
    trainable: int


def network_sizes(shape: Shape) -> NetworkSizes:
    """The parameters alone: those of every batch and precision, known without a pass."""
    return _network_sizes(shape.name, shape.role, shape.mode, shape.rank)


@cache
def _network_sizes(name: str, role: Role, mode: str, rank: int) -> NetworkSizes:
    whole = whole_network(name, role)
    base = parameter_count(whole.network)
    if mode != "lora":
        return NetworkSizes(base, base)
    _, trained = _networks(name, role, mode, rank)
    return NetworkSizes(base, sum(parameter.numel() for parameter in trained.parameters() if parameter.requires_grad))


@dataclass(frozen=True)
class WholeNetwork:
    """A network on the meta device.

    Attributes:
        network: all of it.
        kinds: its blocks that equal each other.
    """

    network: nn.Module
    kinds: tuple[tuple[str, ...], ...]

    def abridged(self) -> nn.Module:
        """A copy in which one block of a kind stands for all."""
        return abridged(self.network, self.kinds)


@cache
def whole_network(name: str, role: Role) -> WholeNetwork:
    """A pipeline's network, built once.

    Args:
        name: of its blueprint.
        role: whether the name is a reference's or a generator's.
    """
    blueprint = pipeline_blueprint(name, role)
    with quiet_loading(), torch.device("meta"):
        network = blueprint.build(blueprint.family.network_name)
    return WholeNetwork(network, kinds_of(network))


@Remembered
def network_costs(shape: Shape, conditions: float) -> NetworkCosts:
    """Costs of the network passes of a step.

    Args:
        shape: what is run.
        conditions: rows of the reference's pass for each sample: 2 where guidance takes the null condition along, 0 for
            a network that is not looked at between generator and rewards.
    """
    sizes, passes = network_sizes(shape), _passes(shape, conditions)
    return NetworkCosts(sizes.base, sizes.trainable, passes.divergence, passes.held, passes.backward)


@dataclass(frozen=True)
class _Passes:
    """Costs of a network's passes, as in `NetworkCosts`."""

    divergence: Cost
    held: Cost
    backward: Cost


@cache
def _networks(name: str, role: Role, mode: str, rank: int) -> tuple[nn.Module, nn.Module]:
    """A reference's network and a trained one, abridged, both in float32."""
    whole = whole_network(name, role)
    base = whole.abridged().eval().requires_grad_(False)
    with torch.device("meta"):
        return base, adapted(base, rank) if mode == "lora" else whole.abridged().train().requires_grad_(True)


def _passes(shape: Shape, conditions: float) -> _Passes:
    """Runs them dry."""
    blueprint = shape.blueprint
    family, latent = blueprint.family, blueprint.latent_shape
    config = read_json(blueprint.folder / family.network_name / "config.json")
    schedule = schedule_from_config(blueprint.scheduler_config, latent)
    prediction = prediction_from_config(blueprint.scheduler_config)

    base, trained = copy.deepcopy(_networks(shape.name, shape.role, shape.mode, shape.rank))
    with quiet_loading():
        base.to(shape.dtype)
    if shape.mode == "lora":  # its frozen weights are the same tensors, and its buffers are not
        for module in trained.modules():
            module._buffers.update(
                {
                    name: buffer.to(shape.dtype)
                    for name, buffer in module.named_buffers(recurse=False)
                    if buffer.is_floating_point()
                }
            )
    if shape.checkpointing:
        recompute_blocks(trained, family)
        if shape.slopes != "none":  # of the reference as well, as `training.optim` has it
            recompute_blocks(base, family)
    with dry(shape.gpu):
        faked(base, trained)
        offload = DryOffload()
        parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(_forgotten)
        known = _REHEARSED[shape.gpu]
        rehearsals = [Rehearsals(base, None, known), Rehearsals(trained, offload if shape.offload else None, known)]

        def inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor, Condition]:
            condition = cast(BlankConditions, family).blank(config, batch)
            return torch.zeros(batch, *latent), torch.full((batch,), 0.5), condition

        def predict(network: nn.Module, batch: int, graph: bool, noisy: torch.Tensor | None = None) -> torch.Tensor:
            x, t, condition = inputs(batch)
            if noisy is not None:
                x = torch.cat([noisy] * (batch // len(noisy)))
            denoiser = Denoiser(network, schedule, prediction, family.forward)
            with torch.set_grad_enabled(graph), pass_autocast("cpu", shape.autocast):
                return denoiser.predict_x0(x, t, condition)

        def begin(toward: torch.Tensor | None = None, beside: bool = False) -> None:
            for blocks in rehearsals:
                blocks.begin(toward, beside)

        between = _divergence_cost(shape, conditions, (base, trained), predict, begin)
        begin(beside=True)
        with offload if shape.offload else nullcontext():
            held, x0 = cost_of(lambda: predict(trained, shape.batch, True), keep=True)

        def backward() -> None:
            x0.sum().backward()

        back, _ = cost_of(backward)
    launches = back.launches + offload.copies
    return _Passes(between, held, replace(back, kept=0, launches=launches, moved=offload.moved))


def _divergence_cost(
    shape: Shape,
    conditions: float,
    networks: tuple[nn.Module, nn.Module],
    predict: Callable[..., torch.Tensor],
    begin: Callable[[torch.Tensor], None],
) -> Cost:
    """The passes of reference and assistant on noised samples, and the way back where a term takes slopes."""
    if not conditions:
        return Cost()
    base, trained = networks
    rows = int(conditions * shape.batch)
    if shape.slopes == "none":
        # Nothing is kept without a graph, so this is the same however graphs are.
        key = (replace(shape, checkpointing=False, offload=False), conditions)
        if key not in _DIVERGENCES:

            def passes() -> None:
                given = predict(base, rows, False)
                predict(trained, shape.batch, False)
                del given

            _DIVERGENCES[key], _ = cost_of(passes)
        return _DIVERGENCES[key]
    both = shape.slopes == "both"
    with Meter() as meter:
        noisy = torch.zeros(shape.batch, *shape.blueprint.latent_shape, requires_grad=True)
        begin(noisy)
        given = predict(base, rows, True, noisy)
        kept = 0 if both else meter.now
        own = predict(trained, shape.batch, both, noisy)
        torch.autograd.grad(given.sum() + own.sum() if both else given.sum(), noisy)
    return Cost(meter.peak, kept, meter.flops, meter.launches)


def _forgotten(parameter: torch.Tensor) -> None:
    parameter.grad = None


@dataclass(frozen=True)
class _Decoding:
    """What the way from latents to images, and back, costs.

    Attributes:
        images: their shape.
        forward: with its graph, which is kept.
        backward: its operations and launches; its peak counts the graph, which is freed as it goes.
    """

    images: tuple[int, ...]
    forward: Cost
    backward: Cost


@cache
def _decode_costs(
    reference: str,
    options: DecodeOptions,
    batch: int,
    dtype: torch.dtype,
    autocast: torch.dtype | None,
    gpu: bool,
    size: Size | None,
) -> _Decoding:
    blueprint = replace(pipeline_blueprint(reference), size=size)
    family = blueprint.family
    latent = blueprint.latent_shape
    with quiet_loading(), torch.device("meta"):
        vae = blueprint.build("vae").to(decoder_dtype(blueprint.folder, family, dtype)).eval().requires_grad_(False)
    with dry(gpu):
        faked(vae)
        decode = reward_decoder(vae, options, autoencoding_of(family))
        with Meter() as meter:
            latents = torch.zeros(batch, *latent, requires_grad=True)
            with _decode_autocast(dtype, autocast):
                images = decode(latents)
            forward = Cost(meter.peak, meter.now, meter.flops, meter.launches)
            meter.peak = meter.now
            torch.autograd.grad(images, latents, torch.zeros_like(images))
            backward = Cost(meter.peak, 0, meter.flops - forward.flops, meter.launches - forward.launches)
        return _Decoding(tuple(images.shape), forward, backward)


def _decode_autocast(dtype: torch.dtype, autocast: torch.dtype | None) -> torch.autocast:
    half = autocast or dtype
    return torch.autocast("cpu", half, enabled=half != torch.float32)


@cache
def score_costs(name: str, images: tuple[int, ...], dtype: torch.dtype, gpu: bool) -> tuple[int, Cost]:
    """Parameters of a reward's network, and the cost of scores of images and of their gradient.

    Args:
        name: of a reward with a blueprint.
        images: their shape, `(batch, 3, height, width)`.
        dtype: of the network.
        gpu: whether it runs on one.

    Returns:
        The parameters, and the cost beside weights and images.

    Raises:
        RequestError: there is no such blueprint, or it is a pipeline's.
    """
    whole = _whole_reward(name)
    short = whole.abridged().to(dtype)
    with dry(gpu):
        faked(short)
        Rehearsals(short)

        def score() -> None:
            pixels = torch.zeros(images, requires_grad=True)
            with _decode_autocast(dtype, None):
                scores = short(pixels)
            torch.autograd.grad(scores.sum(), pixels)

        cost, _ = cost_of(score)
    pixels = 4 * math.prod(images)  # they are decoding's
    return parameter_count(whole.network), replace(cost, peak=cost.peak - pixels)


@cache
def _whole_reward(name: str) -> WholeNetwork:
    """A reward's network, built once."""
    blueprint = find_blueprint(name)
    if not isinstance(blueprint, RewardBlueprint):
        raise RequestError(f"'{name}' is a pipeline; expected the name of a reward.")
    with quiet_loading(), torch.device("meta"):
        network = blueprint.build().eval().requires_grad_(False)
    return WholeNetwork(network, kinds_of(network))


def reward_parameters(name: str) -> int | None:
    """Parameters of a reward's network; None where no blueprint says.

    Raises:
        RequestError: there is no such reward.
    """
    if name in get_registry().entries["blueprint"]:
        return parameter_count(_whole_reward(name).network)
    elsewhere = is_python_name(name) or is_isolated_name(name) or is_remote_name(name)
    if not elsewhere and fitted_folder(name) is None:
        get_registry().find("reward", name)
    return None


@Remembered
def reward_costs(
    name: str,
    reference: str,
    options: DecodeOptions,
    batch: int,
    dtype: torch.dtype,
    autocast: torch.dtype | None,
    gpu: bool = True,
    own: torch.dtype = torch.float32,
    size: Size | None = None,
) -> RewardCosts:
    """A reward's costs.

    Args:
        name: of a reward; one without a blueprint, such as a user's own, counts as decoding and its way back.
        reference: name of the blueprint whose decoder makes the images.
        options: of decoding.
        batch: samples at a time.
        dtype: of the decoder's weights.
        autocast: of the decoder's passes, None for none.
        gpu: whether they run on one.
        own: what the reward's network is kept and runs in.
        size: height and width of the latents, where these are not the reference's own.

    Raises:
        RequestError: there is no such reward.
    """
    decode = _decode_costs(reference, options, batch, dtype, autocast, gpu, size)
    parameters, score = reward_parameters(name), Cost()
    if parameters is not None:
        _, score = score_costs(name, decode.images, own, gpu)
    peak = max(decode.forward.peak, decode.forward.kept + score.peak, decode.backward.peak)
    whole = Cost(
        peak,
        flops=decode.forward.flops + score.flops + decode.backward.flops,
        launches=decode.forward.launches + score.launches + decode.backward.launches,
    )
    decoding, scoring, way_back = (replace(cost, peak=0, kept=0) for cost in (decode.forward, score, decode.backward))
    return RewardCosts(parameters, whole, decoding, scoring, own, way_back)
