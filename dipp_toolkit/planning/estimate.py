r"""Memory, operations and seconds of a DI++ step, from dry runs of the real networks.

A step is K assistant updates and one generator update (`dipp_toolkit.engine`):

    assistant update      x0 = g(z, c) without a graph; forward and backward of the assistant
    generator forward     with its graph, held while the terms run; without one where it is recomputed
    divergence            reference (both conditions in one batch where guidance is not 1) and assistant, no graph
    rewards               one after the other: decode, score, backward; the graph is freed
    generator backward

Peak memory is what stays (weights, gradients, optimiser states, averages) and the largest of these, with the
generator's graph beside the terms. Seconds are operations over the GPU's published dense peak times a utilisation,
which is an assumption, not a measurement.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import nn

from .. import adapters
from ..adapters import AdapterSettings
from ..blueprints import PipelineBlueprint, RewardBlueprint, find_blueprint, find_pipeline, parameter_count
from ..condition import Condition
from ..config import TrainConfig
from ..decoding import DecodeOptions, reward_decoder
from ..denoiser import Denoiser
from ..diffusers_reference import latent_shape_of
from ..errors import RequestError
from ..folders import quiet_loading, read_json
from ..precision import DTYPES, PRECISIONS
from ..predictions import prediction_from_config
from ..registry import get_registry
from ..schedules import schedule_from_config
from .dry_run import Cost, cost_of, dry, faked
from .machines import GPUS, UTILISATION

PROCESS = int(1.75 * 2**30)
"""The interpreter, its libraries and their kernels, and what the allocator keeps beyond live tensors.

Calibrated, not derived: `benchmarks/full_size_step` measured 1.8 GiB of it for both of its pipelines on a CPU.
"""


@dataclass(frozen=True)
class Plan:
    """What a run will need.

    Attributes:
        settings: those that decide it.
        parameters: by network.
        trainable: parameters that are trained, generator and assistant together.
        resident: bytes that stay through the run, by part.
        transient: bytes beside them at the worst moment of each piece of a step.
        flops: operations of each piece of a step.
        text_encoders: bytes of the text encoders while prompts are encoded, before the first step.
        seconds: a step's on one GPU, by the GPU's name.
        passes: forward and backward passes of each network, by piece of a step, in one of its `accumulation` parts.
        backward: operations of one backward pass of a trained network.
        utilisation: share of a GPU's published peak that was assumed for seconds.
    """

    settings: dict[str, Any]
    parameters: dict[str, int]
    trainable: int
    resident: dict[str, int]
    transient: dict[str, int]
    flops: dict[str, int]
    text_encoders: int
    seconds: dict[str, float] = field(default_factory=dict)
    passes: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    backward: int = 0
    utilisation: float = UTILISATION

    @property
    def peak(self) -> int:
        """Peak bytes of a step, the process included."""
        return sum(self.resident.values()) + max(self.transient.values())

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain numbers."""
        return {**asdict(self), "peak": self.peak, "flops_per_step": sum(self.flops.values())}


@dataclass(frozen=True)
class _Shape:
    """What decides the networks' dry runs; equal shapes are run once."""

    reference: str
    mode: str
    rank: int
    batch: int
    dtype: torch.dtype
    autocast: torch.dtype | None
    checkpointing: bool


def make_plan(config: TrainConfig, utilisation: float = UTILISATION) -> Plan:
    """Plan a run.

    Args:
        config: resolved settings; the reference, the generator and the rewards need blueprints.
        utilisation: share of a GPU's published peak that is assumed for seconds, in (0, 1].

    Raises:
        RequestError: a name has no blueprint, or is no pipeline's or no reward's.
    """
    generator = pipeline_blueprint(config.generator, "generator") if config.generator else None
    if config.reference is None:
        raise RequestError(f"Name the reference of '{config.generator}' with --reference.")
    reference = pipeline_blueprint(config.reference)
    generator = generator or reference
    shape = _Shape(
        config.reference, config.mode, config.lora_rank, config.batch_size, DTYPES[config.frozen_precision],
        PRECISIONS[config.precision], config.gradient_checkpointing,
    )  # fmt: skip
    networks = _networks(shape, 1.0 if config.guidance == 1 else 2.0)
    shares = generator.folder == reference.folder and config.generator != "sdxl-dmd2"
    width = shape.dtype.itemsize
    trained, base = networks["trainable"], networks["base"]
    parameters = {"reference": base}
    resident = {"process": PROCESS, "reference": base * width}
    if not shares:
        parameters["generator"] = base
    if config.mode == "full":
        resident |= {"generator": trained * 4, "assistant": trained * 4}
    else:
        resident |= {"adapters": 2 * trained * 4} | ({} if shares else {"generator": base * width})
    resident["gradients"] = 2 * trained * 4
    resident["optimizer"] = 2 * trained * (2 if config.optimizer == "8bit" else 8)
    resident["average"] = trained * 4
    # Supervised at the last step, all steps' graphs are held at once; at every step, the terms look at each.
    steps, every = config.generator_steps, config.supervise == "every"
    graphs, looks, sampled = (1, steps, (steps + 1) / 2) if every else (steps, 1, steps)
    flops = {"assistant update": 0, "divergence": looks * networks["divergence"].flops}
    rewards: dict[str, Cost] = {}
    options = DecodeOptions(config.decode_checkpointing, config.decode_tiling, None, config.reward_resolution)
    pieces = config.reward_batch or config.batch_size
    for name in dict.fromkeys([*config.rewards, *config.floors]):
        count, one = _reward(name, reference, options, pieces, shape.dtype, shape.autocast)
        times = looks * -(-config.batch_size // pieces)
        rewards[name] = Cost(one.peak, 0, one.flops * times)
        parameters[name] = count
        resident[name] = count * width
        flops[f"reward {name}"] = rewards[name].flops
    parameters["decoder"] = _count(config.reference, "vae")
    resident["decoder"] = parameters["decoder"] * width
    held, backward = networks["held"], networks["backward"]
    rounds = config.assistant_rounds
    flops["assistant update"] = rounds * (int(sampled * held.flops) + networks["assistant"].flops)
    flops["generator"] = steps * (held.flops + backward.flops + (held.flops if config.recompute_generator else 0))
    flops = {piece: int(count * config.accumulation) for piece, count in flops.items()}
    passes: dict[str, dict[str, tuple[float, float]]] = {
        "assistant update": {"generator": (rounds * sampled, 0), "assistant": (rounds, rounds)},
        "divergence": {"reference": (looks, 0), "assistant": (looks, 0)},
        "generator": {"generator": (steps * (2 if config.recompute_generator else 1), steps)},
    }
    earlier = (graphs - 1) * held.kept
    graph = 0 if config.recompute_generator else earlier + held.kept
    transient = {
        "assistant update": networks["assistant"].peak,
        "generator forward": earlier + held.peak,
        "divergence": graph + networks["divergence"].peak,
        "generator backward": earlier + held.kept + backward.peak,
    } | {f"reward {name}": graph + one.peak for name, one in rewards.items()}
    total = sum(flops.values())
    half = config.precision != "fp32"
    seconds = {gpu: total / ((fast if half else slow) * 1e12 * utilisation) for gpu, (fast, slow, _) in GPUS.items()}
    text = sum(_count(config.reference, name) for name in reference.text_encoders) * width
    return Plan(
        _deciding(config), parameters, 2 * trained, resident, transient, flops, text, seconds, passes, backward.flops,
        utilisation,
    )  # fmt: skip


DECIDING = (
    "generator", "reference", "rewards", "floors", "mode", "batch_size", "accumulation", "lora_rank", "precision",
    "frozen_precision", "gradient_checkpointing", "recompute_generator", "decode_checkpointing", "decode_tiling",
    "reward_batch", "reward_resolution", "optimizer", "assistant_rounds", "guidance", "generator_steps", "supervise",
)  # fmt: skip


def _deciding(config: TrainConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in DECIDING}


def pipeline_blueprint(name: str, kind: str = "reference") -> PipelineBlueprint:
    """The blueprint of a generator or reference.

    Raises:
        RequestError: there is none, or it is a reward's.
    """
    registry = get_registry()
    if name not in registry.entries["blueprint"]:
        registry.find(kind, name)
        raise RequestError(
            f"The {kind} '{name}' has no blueprint to plan with; those that have: "
            f"{', '.join(sorted(registry.entries[kind].keys() & registry.entries['blueprint'].keys()))}."
        )
    return find_pipeline(name)


@cache
def _count(reference: str, component: str) -> int:
    with torch.device("meta"):
        return parameter_count(pipeline_blueprint(reference).build(component))


_DIVERGENCES: dict[tuple[_Shape, float], Cost] = {}


@cache
def _networks(shape: _Shape, conditions: float) -> dict[str, Any]:
    """Costs of the network passes of a step; see the module's text."""
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
    with dry():
        faked(base, trained)

        def inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor, Condition]:
            return torch.zeros(batch, *latent), torch.full((batch,), 0.5), family.blank(config, batch)  # type: ignore[attr-defined]

        def predict(network: nn.Module, batch: int, graph: bool) -> torch.Tensor:
            x, t, condition = inputs(batch)
            denoiser = Denoiser(network, schedule, prediction, family.forward)
            with (
                torch.set_grad_enabled(graph),
                torch.autocast("cpu", shape.autocast or torch.bfloat16, enabled=shape.autocast is not None),
            ):
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

        def backward() -> None:
            x0.sum().backward()

        back, _ = cost_of(backward)
        count = sum(one.numel() for one in trained.parameters() if one.requires_grad)
        size = parameter_count(base)
    # Gradients are counted among what stays.
    back = Cost(max(back.peak - 4 * count, 0), 0, back.flops)
    both = Cost(max(held.peak, held.kept + back.peak), 0, held.flops + back.flops)
    return {
        "base": size, "trainable": count, "divergence": between, "held": held, "assistant": both,
        "backward": back,
    }  # fmt: skip


@cache
def _reward(
    name: str,
    reference: PipelineBlueprint,
    options: DecodeOptions,
    batch: int,
    dtype: torch.dtype,
    autocast: torch.dtype | None,
) -> tuple[int, Cost]:
    """Parameters of a reward, the cost of decoding and scoring with a gradient."""
    found = find_blueprint(name)
    if not isinstance(found, RewardBlueprint):
        raise RequestError(f"'{name}' is a pipeline; expected a reward.")
    latent = latent_shape_of(reference.folder, reference.family)
    with quiet_loading(), torch.device("meta"):
        vae = reference.build("vae").to(dtype).eval().requires_grad_(False)
        network = found.build().to(dtype).eval().requires_grad_(False)
    with dry():
        faked(vae, network)
        decode = reward_decoder(vae, options)

        def score() -> None:
            latents = torch.zeros(batch, *latent, requires_grad=True)
            half = autocast or dtype
            with torch.autocast("cpu", half, enabled=half != torch.float32):
                scores = network(decode(latents))
            torch.autograd.grad(scores.sum(), latents)

        cost, _ = cost_of(score)
        return parameter_count(network), cost
