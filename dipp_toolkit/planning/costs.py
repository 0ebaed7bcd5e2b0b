"""What the pieces of a step cost, from dry runs of the real networks; equal ones are run once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import nn

from .. import adapters
from ..adapters import AdapterSettings
from ..blueprints import PipelineBlueprint, RewardBlueprint, find_blueprint, find_pipeline, parameter_count
from ..condition import Condition
from ..decoding import DecodeOptions, reward_decoder
from ..denoiser import Denoiser
from ..diffusers_reference import latent_shape_of
from ..errors import RequestError
from ..folders import quiet_loading
from ..plain_json import read_json
from ..precision import pass_autocast
from ..predictions import prediction_from_config
from ..python_files import is_python_name
from ..registry import get_registry
from ..saved_generators import saved_generator, split_saved
from ..schedules import schedule_from_config
from .dry_run import Cost, Meter, cost_of, dry, faked


@dataclass(frozen=True)
class Shape:
    """What decides the networks' dry runs.

    Attributes:
        reference: name of its blueprint.
        mode: `"full"` or `"lora"`.
        rank: of adapters.
        batch: samples a pass.
        dtype: of frozen weights.
        autocast: of passes, None for none.
        checkpointing: whether blocks are recomputed in backward passes.
        gpu: whether they run on one; autocast keeps other dtypes there.
    """

    reference: str
    mode: str
    rank: int
    batch: int
    dtype: torch.dtype
    autocast: torch.dtype | None
    checkpointing: bool
    gpu: bool = True


@dataclass(frozen=True)
class NetworkCosts:
    """The passes of a step.

    Attributes:
        base: parameters of the network.
        trainable: parameters of it, or of an adapter, that are trained.
        divergence: reference and assistant, without a graph.
        held: forward pass of a trained network, its graph kept.
        backward: its backward pass, beside the graph and without the gradients that it leaves.
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
        return Cost(peak, 0, self.held.flops + self.backward.flops, self.held.launches + self.backward.launches)


@dataclass(frozen=True)
class RewardCosts:
    """A reward's score and its gradient.

    Attributes:
        parameters: of its network.
        whole: decoding, scoring, and the way back to the latents.
        decode: operations and launches of decoding alone, which rewards of a step share.
    """

    parameters: int
    whole: Cost
    decode: Cost


def pipeline_blueprint(name: str, kind: str = "reference") -> PipelineBlueprint:
    """The blueprint of a generator or reference.

    Raises:
        RequestError: there is none, or it is a reward's.
    """
    registry = get_registry()
    if kind == "generator":
        saved = saved_generator(name)
        name = split_saved(name)[0] if saved is None else saved.name
    if name not in registry.entries["blueprint"]:
        if is_python_name(name):
            raise RequestError(
                f"The {kind} '{name}' has no blueprint to plan with: a plan is made of networks without weights. "
                "Register both names in a plugin, with dipp_register_blueprints, or leave the generator out to plan "
                "the step of its reference."
            )
        registry.find(kind, name)
        raise RequestError(
            f"The {kind} '{name}' has no blueprint to plan with; those that have: "
            f"{', '.join(sorted(registry.entries[kind].keys() & registry.entries['blueprint'].keys()))}."
        )
    return find_pipeline(name)


@cache
def parameters_of(reference: str, component: str) -> int:
    """Parameters of a pipeline's component."""
    with torch.device("meta"):
        return parameter_count(pipeline_blueprint(reference).build(component))


_DIVERGENCES: dict[tuple[Shape, float], Cost] = {}


@cache
def network_costs(shape: Shape, conditions: float) -> NetworkCosts:
    """Costs of the network passes of a step.

    Args:
        shape: what is run.
        conditions: rows of the reference's pass for each sample: 2 where guidance takes the null condition along.
    """
    blueprint = pipeline_blueprint(shape.reference)
    family, latent = blueprint.family, latent_shape_of(blueprint.folder, blueprint.family)
    config = read_json(blueprint.folder / family.network_name / "config.json")
    schedule = schedule_from_config(blueprint.scheduler_config, latent)
    prediction = prediction_from_config(blueprint.scheduler_config)
    with quiet_loading(), torch.device("meta"):
        base = blueprint.build(family.network_name).to(shape.dtype).eval().requires_grad_(False)
        if shape.mode == "lora":
            trained = adapters.adapted(base, AdapterSettings(shape.rank, float(shape.rank)))
        else:
            trained = blueprint.build(family.network_name).train().requires_grad_(True)
    if shape.checkpointing:
        trained.enable_gradient_checkpointing()  # type: ignore[operator]
    with dry(shape.gpu):
        faked(base, trained)

        def inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor, Condition]:
            return torch.zeros(batch, *latent), torch.full((batch,), 0.5), family.blank(config, batch)  # type: ignore[attr-defined]

        def predict(network: nn.Module, batch: int, graph: bool) -> torch.Tensor:
            x, t, condition = inputs(batch)
            denoiser = Denoiser(network, schedule, prediction, family.forward)
            with torch.set_grad_enabled(graph), pass_autocast("cpu", shape.autocast):
                return denoiser.predict_x0(x, t, condition)

        def divergence() -> None:
            given = predict(base, int(conditions * shape.batch), False)
            predict(trained, shape.batch, False)
            del given

        # Nothing is recomputed without a graph, so this is the same with checkpointing and without.
        key = (replace(shape, checkpointing=False), conditions)
        if key not in _DIVERGENCES:
            _DIVERGENCES[key], _ = cost_of(divergence)
        between = _DIVERGENCES[key]
        held, x0 = cost_of(lambda: predict(trained, shape.batch, True), keep=True)

        parameters = [one for one in trained.parameters() if one.requires_grad]
        for one in parameters:
            one.register_post_accumulate_grad_hook(_forgotten)

        def backward() -> None:
            x0.sum().backward()

        back, _ = cost_of(backward)
        count = sum(one.numel() for one in parameters)
        size = parameter_count(base)
    return NetworkCosts(size, count, between, held, Cost(back.peak, 0, back.flops, back.launches))


def _forgotten(parameter: torch.Tensor) -> None:
    parameter.grad = None


@cache
def reward_costs(
    name: str,
    reference: PipelineBlueprint,
    options: DecodeOptions,
    batch: int,
    dtype: torch.dtype,
    autocast: torch.dtype | None,
    gpu: bool = True,
) -> RewardCosts:
    """A reward's costs.

    Args:
        name: of its blueprint.
        reference: whose decoder makes the images.
        options: of decoding.
        batch: samples at a time.
        dtype: of frozen weights.
        autocast: of passes, None for none.
        gpu: whether they run on one.

    Raises:
        RequestError: there is no such reward.
    """
    found = find_blueprint(name)
    if not isinstance(found, RewardBlueprint):
        raise RequestError(f"'{name}' is a pipeline; expected a reward.")
    latent = latent_shape_of(reference.folder, reference.family)
    with quiet_loading(), torch.device("meta"):
        vae = reference.build("vae").to(dtype).eval().requires_grad_(False)
        network = found.build().to(dtype).eval().requires_grad_(False)
    with dry(gpu):
        faked(vae, network)
        decode = reward_decoder(vae, options)

        alone = Meter()

        def score() -> None:
            latents = torch.zeros(batch, *latent, requires_grad=True)
            half = autocast or dtype
            with torch.autocast("cpu", half, enabled=half != torch.float32):
                with alone:
                    images = decode(latents)
                scores = network(images)
            torch.autograd.grad(scores.sum(), latents)

        cost, _ = cost_of(score)
        return RewardCosts(parameter_count(network), cost, Cost(flops=alone.flops, launches=alone.launches))
