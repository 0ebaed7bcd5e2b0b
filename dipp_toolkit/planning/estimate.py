r"""Memory, operations and seconds of a DI++ step, from dry runs of the real networks.

A step is K assistant updates and one generator update (`dipp_toolkit.training.engine`):

    assistant update      x0 = g(z, c) without a graph; forward and backward of the assistant
    generator forward     with its graph, held while the terms run; without one where it is recomputed
    divergence            reference (both conditions in one batch where guidance is not 1) and assistant, no graph
    rewards               one after the other: decode, score, backward; the graph is freed
    generator backward

Peak memory is what stays (weights, gradients, optimiser states, averages) and the largest of these, with the
generator's graph beside the terms. Seconds of a piece are its operations over the GPU's published dense peak times a
utilisation, or its calls times what a call costs, whichever is longer, and what is moved between device and host over
the rate of their link; see `machines`.

A term that differentiates the reference (`SLOPES`) keeps its graph in the divergence, and one that has the rewards in
its formula keeps it while they run. CUDA graphs (`compile=graphs`) have a pool of memory of their own, which what runs
eagerly cannot use: it is estimated as the most that any of the networks' passes needs, as resident, and not measured.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from ..config import MEASURE_EVERY, NOISES_COMPARED, TrainConfig
from ..errors import RequestError
from ..models.blueprints import PipelineBlueprint
from ..models.decoding import DecodeOptions
from ..models.family import IdleSettings
from ..models.generator_options import starts_elsewhere
from ..models.quantized_layers import KINDS
from ..models.shared_components.choice import check_conditions
from ..models.sizes import asked_sizes, recorded_sizes
from ..registry import get_registry
from ..rewards.groups import declared_samples
from ..utils.image_sizes import Size
from ..utils.imports import made_by
from ..utils.json_files import read_json
from ..utils.precision import AUTO, DTYPES, FROZEN_DTYPES, PRECISIONS, choose_precision
from .ahead import Call
from .costs import (
    NetworkCosts,
    QuantizedWeights,
    RewardCosts,
    Shape,
    Slopes,
    network_costs,
    network_sizes,
    parameters_of,
    pipeline_blueprint,
    quantized_weights,
    reward_costs,
    reward_parameters,
)
from .dry_run import Cost
from .machines import GPUS, HOST_LINKS, LAUNCH, REWARD_UTILISATION, TF32, UTILISATION

PROCESS = int(1.75 * 2**30)
"""The interpreter, its libraries and their kernels, and what the allocator keeps beyond live tensors.

Calibrated, not derived: `benchmarks/full_size_step` measured 1.8 GiB of it for both of its pipelines on a CPU.
"""

MARGIN = 0.05
"""Share of the planned peak that a machine should have beside it.

What `benchmarks/full_size_step` measured stands within 1 to 2 % of the plan on a CPU and 4 % of it on an H100.
"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will need.

    Attributes:
        settings: those that decide it.
        parameters: by network.
        trained: parameters that are trained, of the generator and of the assistant.
        resident: bytes that stay through the run, by part.
        transient: bytes beside them at the worst moment of each piece of a step.
        flops: operations of each piece of a step.
        launches: kernels that each piece of a step starts.
        text_encoders: bytes of the text encoders while prompts are encoded, before the first step.
        seconds: a step's on one GPU, by the GPU's name.
        pieces: the same, by piece of a step.
        backward: seconds of one backward pass of the generator and of the assistant, by the GPU's name.
        passes: forward and backward passes of each network, by piece of a step, in one of its `accumulation` parts.
        utilisation: share of a GPU's published peak that was assumed for seconds.
        uncounted: rewards without a blueprint: of them, decoding alone is counted.
        latent: rewards that are learned on latents: operations, kernels and seconds are the mean over steps while
            the stand-in is trusted; memory is that of a step that scores all samples.
        warm_up: seconds of the assistant's updates before the first step on one GPU, by the GPU's name.
        offloaded: bytes of the host's memory that graphs wait in.
        checkpoint: bytes of the host's memory that a checkpoint is copied to before it is written; on a CPU they come
            beside the peak.
    """

    settings: dict[str, Any]
    parameters: dict[str, int]
    trained: dict[str, int]
    resident: dict[str, int]
    transient: dict[str, int]
    flops: dict[str, int]
    launches: dict[str, int]
    text_encoders: int
    seconds: dict[str, float] = field(default_factory=dict)
    pieces: dict[str, dict[str, float]] = field(default_factory=dict)
    backward: dict[str, dict[str, float]] = field(default_factory=dict)
    passes: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    utilisation: float = UTILISATION
    uncounted: tuple[str, ...] = ()
    latent: tuple[str, ...] = ()
    warm_up: dict[str, float] = field(default_factory=dict)
    offloaded: int = 0
    checkpoint: int = 0

    @property
    def trainable(self) -> int:
        """Parameters that are trained, generator and assistant together."""
        return sum(self.trained.values())

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
        own = {
            "trainable": self.trainable,
            "peak": self.peak,
            "flops_per_step": sum(self.flops.values()),
            "seconds": seconds,
            "warm_up": warm_up,
        }
        return {**asdict(self), **own, "seconds": seconds, "warm_up": warm_up}


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


def _same_network(generator: PipelineBlueprint, reference: PipelineBlueprint) -> bool:
    """Whether passes of both cost the same: equal configurations of the networks, and latents of one shape."""

    def described(blueprint: PipelineBlueprint) -> tuple[object, ...]:
        config = read_json(blueprint.folder / blueprint.family.network_name / "config.json")
        idle = blueprint.family.idle_settings if isinstance(blueprint.family, IdleSettings) else ()
        plain = {name: value for name, value in config.items() if not name.startswith("_") and name not in idle}
        return type(blueprint.family), plain, blueprint.latent_shape

    return generator == reference or described(generator) == described(reference)


def _sizes_alone(shape: Shape) -> NetworkCosts:
    """A network whose passes cost nothing."""
    sizes = network_sizes(shape)
    return NetworkCosts(sizes.base, sizes.trainable, Cost(), Cost(), Cost())


def make_plan(config: TrainConfig, utilisation: float = UTILISATION) -> Plan:
    """Plan a run.

    Args:
        config: resolved settings; the reference, the generator and the rewards need blueprints.
        utilisation: share of a GPU's published peak that long passes are assumed to reach, in (0, 1].

    Raises:
        RequestError: a name has no blueprint, or its blueprint is of another kind.
    """
    step = Step.of(with_precision(config))
    config, work, wide = step.config, step.work, step.float32_flops
    peaks = {gpu: (slow if config.precision == "fp32" else fast) * 1e12 for gpu, (fast, slow, _) in GPUS.items()}
    float32 = {gpu: (TF32[gpu] if config.reward_tf32 else slow) * 1e12 for gpu, (_, slow, _) in GPUS.items()}
    pieces = {
        gpu: {
            piece: _seconds(piece, cost, peak, utilisation, wide.get(piece, 0), float32[gpu])
            + cost.moved / HOST_LINKS[gpu]
            for piece, cost in work.items()
        }
        for gpu, peak in peaks.items()
    }
    updates = config.assistant_warmup * config.accumulation
    encoders = sum(parameters_of(step.shape.name, name) for name in step.reference.text_encoders)
    return Plan(
        settings={name: getattr(config, name) for name in DECIDING} | samples_of_prompts(config),
        parameters=step.parameters,
        trained={name: network.trainable for name, network in step.trained.items()},
        resident=step.resident,
        transient=step.transient,
        flops={piece: cost.flops for piece, cost in work.items()},
        launches={piece: cost.launches for piece, cost in work.items()},
        text_encoders=encoders * step.shape.dtype.itemsize,
        seconds={gpu: sum(seconds.values()) for gpu, seconds in pieces.items()},
        pieces=pieces,
        backward={
            gpu: {name: _seconds(name, cost.backward, peak, utilisation) for name, cost in step.trained.items()}
            for gpu, peak in peaks.items()
        },
        passes=step.passes,
        utilisation=utilisation,
        uncounted=tuple(name for name, reward in step.rewards.items() if reward.parameters is None),
        latent=tuple(name for name in step.rewards if name in config.latent_rewards),
        warm_up={
            gpu: updates
            * (
                _seconds("assistant update", step.assistant_update, peak, utilisation)
                + step.assistant_update.moved / HOST_LINKS[gpu]
            )
            for gpu, peak in peaks.items()
        },
        offloaded=step.graphs * step.generator.backward.moved // 2,
        checkpoint=step.checkpoint,
    )


SLOPES: dict[str, Slopes] = {"score_divergence": "both", "diffused_reward": "reference"}
"""Terms that differentiate networks with respect to noised samples. `diffused_reward` is counted with one pass of the
reference, as it is by default."""
_DEPTHS: tuple[Slopes, ...] = ("none", "reference", "both")


@dataclass(frozen=True, kw_only=True)
class Step:
    """A training step, from which memory and operations follow.

    Attributes:
        config: resolved settings, the precision included.
        reference: its blueprint.
        shape: of the passes.
        networks: costs of the passes of reference and assistant, which is a copy of it.
        generator: costs of the generator's passes; the same object where its network is configured as the reference's.
        rewards: costs by name.
        shares_weights: whether the generator's adapter sits on the reference's own weights.
        quantized: the reference's weights, where linear layers are in 8 or 4 bits.
        quantized_generator: the weights under the generator's adapter, likewise.
    """

    config: TrainConfig
    reference: PipelineBlueprint
    shape: Shape
    networks: NetworkCosts
    generator: NetworkCosts
    rewards: dict[str, RewardCosts]
    shares_weights: bool
    quantized: QuantizedWeights | None = None
    quantized_generator: QuantizedWeights | None = None

    @classmethod
    def of(cls, config: TrainConfig, passes: bool = True, rewards: bool = True) -> Step:
        """The step of a configuration.

        Args:
            config: resolved settings, the precision included.
            passes: run the networks' passes; without, they cost nothing, and networks have their sizes alone.
            rewards: the same of rewards.
        """
        reference, generator, shape, own_shape = _networks_of(config)

        def costs(shape: Shape, conditions: float) -> tuple[NetworkCosts, QuantizedWeights | None]:
            networks = network_costs(shape, conditions) if passes else _sizes_alone(shape)
            if config.frozen_precision not in KINDS:
                return networks, None
            width = shape.autocast or shape.dtype
            quantized = quantized_weights(shape.name, config.frozen_precision, shape.dtype, width, shape.role)
            return networks.with_quantized(quantized, config.mode == "lora"), quantized

        networks, quantized = costs(shape, _conditions(config))
        own, own_quantized = costs(own_shape, 0.0) if own_shape is not shape else (networks, quantized)
        return cls(
            config=config,
            reference=reference,
            shape=shape,
            networks=networks,
            generator=own,
            quantized=quantized,
            quantized_generator=own_quantized,
            rewards=_rewards(config, shape) if rewards else _reward_sizes(config),
            shares_weights=shares_weights(config, generator, reference),
        )

    @property
    def trained(self) -> dict[str, NetworkCosts]:
        """The networks that are trained."""
        return {"generator": self.generator, "assistant": self.networks}

    @property
    def gradients(self) -> dict[str, int]:
        """Bytes of each trained network's gradients, or of as many float32 weights."""
        return {name: network.trainable * 4 for name, network in self.trained.items()}

    @property
    def evaluations(self) -> int:
        """How often the terms are evaluated: on the last step's samples, or on every step's."""
        return self.config.generator_steps if self.config.supervise == "every" else 1

    @property
    def sampled(self) -> float:
        """Passes of the generator that make the samples of an assistant's update, on average."""
        steps = self.config.generator_steps
        return (steps + 1) / 2 if self.config.supervise == "every" else steps

    @property
    def fresh_rounds(self) -> int:
        """Updates of the assistant in a step that make samples of their own; only the first step makes more."""
        rounds = self.config.assistant_rounds
        return max(rounds - 1, 0) if self.config.reuse_samples else rounds

    @property
    def parameters(self) -> dict[str, int]:
        """Parameters by network."""
        parameters = {"reference": self.networks.base}
        if not self.shares_weights:
            parameters["generator"] = self.generator.base
        parameters |= {name: cost.parameters for name, cost in self.rewards.items() if cost.parameters is not None}
        return parameters | {"decoder": parameters_of(self.shape.name, "vae")}

    @property
    def resident(self) -> dict[str, int]:
        """Bytes that stay through the run, by part."""
        config, gradients, width = self.config, self.gradients, self.shape.dtype.itemsize
        frozen, own = (
            network.base * width if quantized is None else quantized.kept
            for network, quantized in ((self.networks, self.quantized), (self.generator, self.quantized_generator))
        )
        resident = {"process": PROCESS, "reference": frozen}
        if config.mode == "full":
            resident |= gradients
        else:
            resident |= {"adapters": sum(gradients.values())} | ({} if self.shares_weights else {"generator": own})
        if config.accumulation > 1:  # they wait for the next pass; otherwise they go once the update is made
            resident["gradients"] = max(gradients.values())
        resident["optimizer"] = sum(gradients.values()) // (2 if config.optimizer == "8bit" else 1)
        resident["average"] = gradients["generator"]
        for name, reward in self.rewards.items():
            if reward.parameters is not None:
                resident[name] = reward.parameters * reward.dtype.itemsize
        resident["decoder"] = self.parameters["decoder"] * width
        return resident | ({"CUDA graphs": max(self._network_passes.values())} if self.has_cuda_graphs else {})

    @property
    def has_cuda_graphs(self) -> bool:
        """Whether the networks' passes are captured, into a pool of memory of their own."""
        return self.config.compile == "graphs" and self.shape.gpu

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint: the generator's, the assistant's and the average's weights, and both optimisers."""
        weights = 2 * self.gradients["generator"] + self.gradients["assistant"]
        return weights + self.resident["optimizer"]

    @property
    def graphs(self) -> int:
        """Passes of the generator whose graphs are held at once."""
        return 1 if self.config.supervise == "every" else self.config.generator_steps

    @property
    def transient(self) -> dict[str, int]:
        """Bytes beside the resident ones at the worst moment of each piece.

        Supervised at the last of several generator steps, the graphs of all are held at once; at every step, one is.
        What CUDA graphs hold in a pool of their own is resident.
        """
        passes = dict.fromkeys(self._network_passes, 0) if self.has_cuda_graphs else dict(self._network_passes)
        if self.config.accumulation == 1:
            passes["assistant update"] += self.gradients["assistant"]
            passes["generator backward"] += self.gradients["generator"]
        held = 0 if self.has_cuda_graphs else self._graph + self.networks.divergence.kept
        return passes | {f"reward {name}": held + reward.whole.peak for name, reward in self.rewards.items()}

    @property
    def _network_passes(self) -> dict[str, int]:
        """Most bytes of the networks' passes, by piece, without the gradients that they leave."""
        networks, held = self.networks, self.generator.held
        earlier = (self.graphs - 1) * held.kept
        return {
            "assistant update": networks.training.peak,
            "generator forward": earlier + held.peak,
            "divergence": self._graph + networks.divergence.peak,
            "generator backward": earlier + held.kept + self.generator.backward.peak,
        }

    @property
    def _graph(self) -> int:
        """Bytes of the generator's graph while the terms run."""
        return 0 if self.config.recompute_generator else self.graphs * self.generator.held.kept

    @property
    def assistant_update(self) -> Cost:
        """One update of the assistant on one micro-batch."""
        return _sum((self.sampled, self.generator.held), (1, self.networks.training))

    @property
    def work(self) -> dict[str, Cost]:
        """Operations, launches and bytes moved by piece."""
        config, networks, generator = self.config, self.networks, self.generator
        forwards = config.generator_steps * (2 if config.recompute_generator else 1)
        work = {
            "assistant update": _sum(
                (self.fresh_rounds * self.sampled, generator.held), (config.assistant_rounds, networks.training)
            ),
            "divergence": _sum((self.evaluations, networks.divergence)),
            **{f"reward {name}": _sum((self.evaluations, cost)) for name, cost in self.reward_work().items()},
            "generator": _sum((forwards, generator.held), (config.generator_steps, generator.backward)),
        }
        return {piece: _sum((config.accumulation, cost)) for piece, cost in work.items()}

    @property
    def passes(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Forward and backward passes of each network on a micro-batch, by piece."""
        rounds, steps = self.config.assistant_rounds, self.config.generator_steps
        forwards = steps * (2 if self.config.recompute_generator else 1)
        return {
            "assistant update": {"generator": (self.fresh_rounds * self.sampled, 0), "assistant": (rounds, rounds)},
            "divergence": {"reference": (self.evaluations, 0), "assistant": (self.evaluations, 0)},
            "generator": {"generator": (forwards, steps)},
        }

    @property
    def float32_flops(self) -> dict[str, int]:
        """Operations that rewards do in float32 whatever the run's precision is, by piece."""
        size = self.config.batch_size
        times = -(-size // (self.config.reward_batch or size)) * self.evaluations * self.config.accumulation
        return {
            f"reward {name}": times * reward.score.flops // _samples_a_look(name, self.config)
            for name, reward in self.rewards.items()
            if reward.dtype == torch.float32
        }

    def reward_work(self) -> dict[str, Cost]:
        """Of each reward on a micro-batch. Rewards of the whole one share one decode, and those that are only added up
        the way back as well, but where each is measured; what is shared is counted with the first. Rewards that are
        learned on latents look at some of the samples, the same for all, and decode these once for themselves.
        """
        config, size = self.config, self.config.batch_size
        batch = config.reward_batch or size
        whole, times = batch >= size, -(-size // batch)
        learned = set(config.latent_rewards) & self.rewards.keys()
        added = config.balance == "sum" and config.reward_clip is None and not config.floors and not learned
        back = times * (1 - 1 / MEASURE_EVERY) if added else 0.0
        decode = 1.0 if whole else back
        firsts = {next((name for name in self.rewards if (name in learned) == kind), "") for kind in (True, False)}
        work = {}
        for name, reward in self.rewards.items():
            shared = () if name in firsts else ((-decode, reward.decode), (-back, reward.way_back))
            cost, samples = _sum((times, reward.whole), *shared), _samples_a_look(name, config)
            # A pass of few prompts has updates in which none of them is looked at.
            asked = min(1.0, -(-size // NOISES_COMPARED) / samples) if name in learned else 1.0
            launches, moved = int(asked * cost.launches), cost.moved // samples
            work[name] = replace(cost, flops=cost.flops // samples, launches=launches, moved=moved)
        return work


def _samples_a_look(reward: str, config: TrainConfig) -> int:
    """Of how many samples a reward scores one: of `latent_every`, while what stands in for it is trusted."""
    return config.latent_every if reward in config.latent_rewards else 1


def _images_compared(config: TrainConfig) -> int:
    """How many images of a prompt rewards and terms compare, as far as options and classes say; 0 where none does."""
    terms = get_registry().entries["term"]
    made = [made_by(terms[name].find_factory()) for name in config.terms if name in terms and not terms[name].missing]
    said = [*declared_samples(config).values(), *(getattr(term, "samples_per_prompt", 0) for term in made)]
    return max([own for own in said if isinstance(own, int)], default=0)


def samples_of_prompts(config: TrainConfig) -> dict[str, int]:
    """Samples of each prompt in a batch, where a reward needs more than the settings name."""
    needed = max(NOISES_COMPARED if config.latent_rewards else 0, _images_compared(config)) or None
    return {} if needed is None or config.noises_per_prompt is not None else {"noises_per_prompt": needed}


def _sum(*parts: tuple[float, Cost]) -> Cost:
    """Operations, launches and bytes moved of costs, so many times each."""
    return Cost(
        flops=int(sum(times * cost.flops for times, cost in parts)),
        launches=int(sum(times * cost.launches for times, cost in parts)),
        moved=int(sum(times * cost.moved for times, cost in parts)),
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


def _networks_of(config: TrainConfig) -> tuple[PipelineBlueprint, PipelineBlueprint, Shape, Shape]:
    """Reference and generator, and the shapes of their passes: one and the same where these cost the same."""
    generator = pipeline_blueprint(config.generator, "generator") if config.generator else None
    if config.reference is None:
        raise RequestError(f"Name the reference of '{config.generator}' with --reference.")
    reference = pipeline_blueprint(config.reference)
    generator = generator or reference
    check_conditions(generator.folder, reference.folder, (config.generator or config.reference, config.reference))
    shape = Shape(
        name=config.reference,
        mode=config.mode,
        rank=config.lora_rank,
        batch=config.batch_size,
        dtype=FROZEN_DTYPES[config.frozen_precision],
        autocast=PRECISIONS[config.precision],
        checkpointing=config.gradient_checkpointing,
        gpu=config.device != "cpu",
        offload=config.activation_offload and config.device != "cpu",
        slopes=max((SLOPES.get(term, "none") for term in config.terms), key=_DEPTHS.index, default="none"),
        size=_largest_size(config, generator, reference),
    )
    if config.generator is None or _same_network(generator, reference):
        return reference, generator, shape, shape
    return reference, generator, shape, replace(shape, name=config.generator, role="generator")


def _conditions(config: TrainConfig) -> float:
    """Rows of the reference's pass for each sample."""
    return 2.0 if config.is_guided else 1.0


def _rewards(config: TrainConfig, shape: Shape) -> dict[str, RewardCosts]:
    return {name: reward_costs(*given) for name, given in _rewards_given(config, shape).items()}


def _rewards_given(config: TrainConfig, shape: Shape) -> dict[str, tuple[Any, ...]]:
    """What the costs of each reward depend on, as `reward_costs` takes it."""
    options = DecodeOptions(config.decode_checkpointing, config.decode_tiling, None, config.reward_resolution)
    pieces = config.reward_batch or config.batch_size
    passes = (shape.dtype, shape.autocast, shape.gpu)
    return {
        name: (name, shape.name, options, pieces, *passes, _dtype_of(name, config), shape.size)
        for name in dict.fromkeys([*config.rewards, *config.floors])
    }


def dry_runs(config: TrainConfig) -> list[Call]:
    """The dry runs that a plan of these settings needs."""
    config = with_precision(config)
    _, _, shape, own_shape = _networks_of(config)
    calls = [Call(network_costs, (shape, _conditions(config)))]
    calls += [Call(network_costs, (own_shape, 0.0))] if own_shape is not shape else []
    return calls + [Call(reward_costs, given) for given in _rewards_given(config, shape).values()]


def _reward_sizes(config: TrainConfig) -> dict[str, RewardCosts]:
    """Rewards whose scores cost nothing."""
    names = dict.fromkeys([*config.rewards, *config.floors])
    return {name: RewardCosts(reward_parameters(name), Cost(), Cost(), dtype=_dtype_of(name, config)) for name in names}


def _largest_size(config: TrainConfig, generator: PipelineBlueprint, reference: PipelineBlueprint) -> Size | None:
    """Height and width of the largest latents of a run, where they are not the reference's own."""
    asked = asked_sizes(reference.folder, reference.family, reference.latent_shape, config.resolution, config.aspects)
    sizes = asked or recorded_sizes(generator.folder, generator.family)
    return max(sizes, key=math.prod, default=None)


def _dtype_of(name: str, config: TrainConfig) -> torch.dtype:
    """What a reward's network runs in: float32, unless its own option says otherwise."""
    return DTYPES.get(config.reward_options.get(name, {}).get("precision", "fp32"), torch.float32)


DECIDING = (
    "generator", "reference", "rewards", "floors", "mode", "batch_size", "accumulation", "lora_rank", "precision",
    "frozen_precision", "gradient_checkpointing", "activation_offload", "recompute_generator", "decode_checkpointing",
    "decode_tiling", "reward_batch", "reward_resolution", "optimizer", "assistant_rounds", "assistant_warmup",
    "guidance", "guidance_schedule", "generator_steps", "supervise", "reuse_samples", "resolution", "aspects",
    "noises_per_prompt", "latent_every", "term", "compile", "reward_tf32",
)  # fmt: skip
"""Settings that decide a plan, by name."""
