r"""Memory, operations and seconds of a DI++ step, from dry runs of the real networks.

A step is K assistant updates and one generator update (`dipp_toolkit.training.engine`):

    assistant update      x0 = g(z, c) without a graph; forward and backward of the assistant
    generator forward     with its graph, held while the terms run; without one where it is recomputed
    divergence            reference (both conditions in one batch where guidance is not 1) and assistant, no graph
    rewards               one after the other: decode, score, backward; the graph is freed
    generator backward

Peak memory is what stays (weights, gradients, optimiser states, averages) and the largest of these, with the
generator's graph beside the terms. Seconds of a piece are its operations over the GPU's published dense peak times a
utilisation, or its calls times what a call costs, whichever is longer; see `machines`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from ..config import TrainConfig
from ..errors import RequestError
from ..models.blueprints import PipelineBlueprint
from ..models.decoding import DecodeOptions
from ..models.generator_options import starts_elsewhere
from ..models.parts.choosing import check_conditions
from ..utils.native_precision import choose_precision
from ..utils.precision import DTYPES, PRECISIONS
from ..utils.precision_choice import AUTO
from .costs import RewardCosts, Shape, network_costs, parameters_of, pipeline_blueprint, reward_costs
from .dry_run import Cost
from .machines import GPUS, LAUNCH, REWARD_UTILISATION, UTILISATION

PROCESS = int(1.75 * 2**30)
"""The interpreter, its libraries and their kernels, and what the allocator keeps beyond live tensors.

Calibrated, not derived: `benchmarks/full_size_step` measured 1.8 GiB of it for both of its pipelines on a CPU.
"""

MARGIN = 0.05
"""Share of the planned peak that a machine should have beside it.

What `benchmarks/full_size_step` measured stands within 1 to 2 % of the plan on a CPU and 4 % of it on an H100.
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
        launches: kernels that each piece of a step starts.
        text_encoders: bytes of the text encoders while prompts are encoded, before the first step.
        seconds: a step's on one GPU, by the GPU's name.
        pieces: the same, by piece of a step.
        backward: seconds of one backward pass of a trained network, by the GPU's name.
        passes: forward and backward passes of each network, by piece of a step, in one of its `accumulation` parts.
        utilisation: share of a GPU's published peak that was assumed for seconds.
        uncounted: rewards without a blueprint: of them, decoding alone is counted.
        warm_up: seconds of the assistant's updates before the first step on one GPU, by the GPU's name.
    """

    settings: dict[str, Any]
    parameters: dict[str, int]
    trainable: int
    resident: dict[str, int]
    transient: dict[str, int]
    flops: dict[str, int]
    launches: dict[str, int]
    text_encoders: int
    seconds: dict[str, float] = field(default_factory=dict)
    pieces: dict[str, dict[str, float]] = field(default_factory=dict)
    backward: dict[str, float] = field(default_factory=dict)
    passes: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    utilisation: float = UTILISATION
    uncounted: tuple[str, ...] = ()
    warm_up: dict[str, float] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Peak bytes of a step, the process included."""
        return sum(self.resident.values()) + max(self.transient.values())

    def holds(self, gpu: str) -> bool:
        """Whether a GPU's memory holds the peak and `MARGIN` beside it."""
        return self.peak * (1 + MARGIN) <= GPUS[gpu][2] * 1e9

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain numbers; a GPU that cannot hold the step has no seconds."""
        seconds = {gpu: value if self.holds(gpu) else None for gpu, value in self.seconds.items()}
        warm_up = {gpu: value if self.holds(gpu) else None for gpu, value in self.warm_up.items()}
        own = {"peak": self.peak, "flops_per_step": sum(self.flops.values()), "seconds": seconds, "warm_up": warm_up}
        return {**asdict(self), **own}


def with_precision(config: TrainConfig) -> TrainConfig:
    """The settings with the precision that `auto` will be: all GPUs in the plan compute bfloat16; a CPU is this one.

    Args:
        config: resolved settings.
    """
    if config.precision != AUTO:
        return config
    chosen = choose_precision(AUTO, torch.device("cpu")).name if config.device == "cpu" else "bf16"
    return config.model_copy(update={"precision": chosen})


def shares_weights(config: TrainConfig, generator: PipelineBlueprint, reference: PipelineBlueprint) -> bool:
    """Whether a generator's adapter sits on the reference's own weights, so that there is one set of them."""
    same = (generator.folder, generator.hub) == (reference.folder, reference.hub)
    return same and not starts_elsewhere(config)


def make_plan(config: TrainConfig, utilisation: float = UTILISATION) -> Plan:
    """Plan a run.

    Args:
        config: resolved settings; the reference, the generator and the rewards need blueprints.
        utilisation: share of a GPU's published peak that long passes are assumed to reach, in (0, 1].

    Raises:
        RequestError: a name has no blueprint, or is no pipeline's or no reward's.
    """
    config = with_precision(config)
    generator = pipeline_blueprint(config.generator, "generator") if config.generator else None
    if config.reference is None:
        raise RequestError(f"Name the reference of '{config.generator}' with --reference.")
    reference = pipeline_blueprint(config.reference)
    generator = generator or reference
    check_conditions(generator.folder, reference.folder, (config.generator or config.reference, config.reference))
    shape = Shape(
        config.reference, config.mode, config.lora_rank, config.batch_size, DTYPES[config.frozen_precision],
        PRECISIONS[config.precision], config.gradient_checkpointing, config.device != "cpu",
    )  # fmt: skip
    networks = network_costs(shape, 2.0 if config.is_guided else 1.0)
    shares = shares_weights(config, generator, reference)
    width, gradients = shape.dtype.itemsize, networks.trainable * 4
    parameters = {"reference": networks.base} | ({} if shares else {"generator": networks.base})
    resident = {"process": PROCESS, "reference": networks.base * width}
    if config.mode == "full":
        resident |= {"generator": gradients, "assistant": gradients}
    else:
        resident |= {"adapters": 2 * gradients} | ({} if shares else {"generator": networks.base * width})
    if config.accumulation > 1:  # they wait for the next pass; else they go once the update is made
        resident["gradients"] = gradients
    resident["optimizer"] = 2 * networks.trainable * (2 if config.optimizer == "8bit" else 8)
    resident["average"] = gradients
    # Supervised at the last step, all steps' graphs are held at once; at every step, the terms look at each.
    steps, every = config.generator_steps, config.supervise == "every"
    graphs, looks, sampled = (1, steps, (steps + 1) / 2) if every else (steps, 1, steps)
    rewards = _rewards(config, shape)
    for name, one in rewards.items():
        if one.parameters is not None:
            parameters[name], resident[name] = one.parameters, one.parameters * one.dtype.itemsize
    parameters["decoder"] = parameters_of(config.reference, "vae")
    resident["decoder"] = parameters["decoder"] * width
    held, backward, rounds = networks.held, networks.backward, config.assistant_rounds
    again = 2 if config.recompute_generator else 1
    whole = _reward_work(config, rewards)
    learning = _sum((sampled, held), (1, networks.training))
    work = {
        "assistant update": _sum((rounds, learning)),
        "divergence": _sum((looks, networks.divergence)),
        **{f"reward {name}": _sum((looks, one)) for name, one in whole.items()},
        "generator": _sum((steps * again, held), (steps, backward)),
    }
    work = {piece: _sum((config.accumulation, one)) for piece, one in work.items()}
    passes: dict[str, dict[str, tuple[float, float]]] = {
        "assistant update": {"generator": (rounds * sampled, 0), "assistant": (rounds, rounds)},
        "divergence": {"reference": (looks, 0), "assistant": (looks, 0)},
        "generator": {"generator": (steps * again, steps)},
    }
    earlier = (graphs - 1) * held.kept
    graph = 0 if config.recompute_generator else earlier + held.kept
    left = 0 if config.accumulation > 1 else gradients
    transient = {
        "assistant update": networks.training.peak + left,
        "generator forward": earlier + held.peak,
        "divergence": graph + networks.divergence.peak,
        "generator backward": earlier + held.kept + backward.peak + left,
    } | {f"reward {name}": graph + one.whole.peak for name, one in rewards.items()}
    peaks = {gpu: (slow if config.precision == "fp32" else fast) * 1e12 for gpu, (fast, slow, _) in GPUS.items()}
    wide = _float32_flops(config, rewards, looks)
    seconds = {
        gpu: {
            piece: _seconds(piece, one, peak, utilisation, wide.get(piece, 0), GPUS[gpu][1] * 1e12)
            for piece, one in work.items()
        }
        for gpu, peak in peaks.items()
    }
    last = {gpu: _seconds("generator", backward, peak, utilisation) for gpu, peak in peaks.items()}
    warm_ups = config.assistant_warmup * config.accumulation
    text = sum(parameters_of(config.reference, name) for name in reference.text_encoders) * width
    return Plan(
        _deciding(config), parameters, 2 * networks.trainable, resident, transient,
        {piece: one.flops for piece, one in work.items()}, {piece: one.launches for piece, one in work.items()}, text,
        {gpu: sum(pieces.values()) for gpu, pieces in seconds.items()}, seconds, last, passes, utilisation,
        tuple(name for name, one in rewards.items() if one.parameters is None),
        {gpu: warm_ups * _seconds("assistant update", learning, peak, utilisation) for gpu, peak in peaks.items()},
    )  # fmt: skip


def _sum(*parts: tuple[float, Cost]) -> Cost:
    """Operations and launches of costs, so many times each."""
    return Cost(
        flops=int(sum(times * one.flops for times, one in parts)),
        launches=int(sum(times * one.launches for times, one in parts)),
    )


def _seconds(piece: str, work: Cost, peak: float, utilisation: float, wide: float = 0, slow: float = math.inf) -> float:
    """Of a piece of a step: its operations, or the calls that start them, whichever takes longer.

    Args:
        piece: its name.
        work: its operations and calls.
        peak: operations a second.
        utilisation: share of the peak that long passes reach.
        wide: those of the operations that are done in float32 whatever the run's precision is.
        slow: such operations a second. The short passes of rewards, which reach a smaller share of a GPU's half
            precision, are taken to reach the share of long ones here: there is less to reach.
    """
    rate = peak * (min(utilisation, REWARD_UTILISATION) if piece.startswith("reward ") else utilisation)
    seconds = (work.flops - wide) / rate + wide / min(rate, slow * utilisation)
    return max(seconds, work.launches * LAUNCH)


def _rewards(config: TrainConfig, shape: Shape) -> dict[str, RewardCosts]:
    options = DecodeOptions(config.decode_checkpointing, config.decode_tiling, None, config.reward_resolution)
    pieces = config.reward_batch or config.batch_size
    names = dict.fromkeys([*config.rewards, *config.floors])
    return {
        name: reward_costs(
            name, shape.reference, options, pieces, shape.dtype, shape.autocast, shape.gpu, _dtype_of(name, config)
        )
        for name in names
    }


def _dtype_of(name: str, config: TrainConfig) -> torch.dtype:
    """What a reward's network runs in: float32, unless its own option says otherwise."""
    return DTYPES.get(config.reward_options.get(name, {}).get("precision", "fp32"), torch.float32)


def _float32_flops(config: TrainConfig, rewards: Mapping[str, RewardCosts], looks: int) -> dict[str, int]:
    """Operations of an update that rewards do in float32, by the pieces they are of."""
    times = -(-config.batch_size // (config.reward_batch or config.batch_size)) * looks * config.accumulation
    return {
        f"reward {name}": times * reward.score.flops
        for name, reward in rewards.items()
        if reward.dtype == torch.float32
    }


def _reward_work(config: TrainConfig, rewards: Mapping[str, RewardCosts]) -> dict[str, Cost]:
    """Of each reward on a pass; rewards that look at the whole batch share one decode, which is the first one's."""
    pieces = config.reward_batch or config.batch_size
    shared, times = pieces >= config.batch_size, -(-config.batch_size // pieces)
    return {
        name: _sum((times, one.whole), (-1 if shared and number else 0, one.decode))
        for number, (name, one) in enumerate(rewards.items())
    }


DECIDING = (
    "generator", "reference", "rewards", "floors", "mode", "batch_size", "accumulation", "lora_rank", "precision",
    "frozen_precision", "gradient_checkpointing", "recompute_generator", "decode_checkpointing", "decode_tiling",
    "reward_batch", "reward_resolution", "optimizer", "assistant_rounds", "assistant_warmup", "guidance",
    "guidance_schedule", "generator_steps", "supervise",
)  # fmt: skip


def _deciding(config: TrainConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in DECIDING}
