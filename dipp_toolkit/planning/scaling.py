r"""A step on several GPUs: memory of each, what they send each other, and where the time goes.

Of W processes each runs the passes of a plan on samples of its own. Bytes that each sends, by ring collectives:

    gradients averaged      2 (W - 1) / W of them, float32, once an update of the assistant and once of the generator
    weights gathered        (W - 1) / W of a network's, as they are kept, for every forward and every backward pass
    gradients reduced       (W - 1) / W of them, float32, for every backward pass

The first is data parallelism, the others FSDP. A pass hides its own collectives, and a backward pass the averaging:
what takes longer than the passes it runs beside is exposed, and adds to the step. Rates are published ones; the latency
of a collective, and that processes wait for the slowest, are not in it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, Literal

from ..config import TrainConfig
from ..errors import RequestError
from ..models.quantized_layers import KINDS
from ..utils.precision import FROZEN_DTYPES
from .costs import Role, whole_network
from .estimate import Plan, make_plan
from .machines import UTILISATION, ring_rate

Sharding = Literal["none", "fsdp"]
WIDE = 4
"""Bytes of a gradient, and of a weight that is trained."""

IN_FLIGHT = 3
"""Blocks of a sharded network that are whole at once: one that computes, the next one, and the parcel it came in."""


@dataclass(frozen=True)
class Scale:
    """How many GPUs work on a step, and what is assumed of them.

    Attributes:
        processes: one a GPU.
        sharding: whether networks are whole in each process, or cut into one part a process.
        gpu: which.
        utilisation: share of its published peak that passes reach, in (0, 1].
        ring: bytes a second that a ring through all processes carries; `ring_rate` says it where None.
    """

    processes: int = 1
    sharding: Sharding = "none"
    gpu: str = "H100"
    utilisation: float = UTILISATION
    ring: float | None = None

    @property
    def sharded(self) -> bool:
        """Whether weights are cut: a process alone keeps its own whole."""
        return self.sharding == "fsdp" and self.processes > 1

    def sent(self, size: float, times: float = 1.0) -> float:
        """Bytes each process sends, so that a tensor of `size` bytes is gathered, or reduced, `times` times."""
        return times * size * (self.processes - 1) / self.processes


@dataclass(frozen=True)
class Piece:
    """Seconds of a piece of a step.

    Attributes:
        compute: of its passes.
        communication: of its collectives, were nothing hidden.
        beside: of the passes that the collectives run beside.
        exposed: of the collectives that add to the step.
    """

    compute: float = 0.0
    communication: float = 0.0
    beside: float = 0.0
    exposed: float = 0.0


@dataclass(frozen=True)
class ScaledPlan:
    """A plan for several GPUs.

    Attributes:
        plan: of one of them; its memory is each process's.
        scale: how many, and what is assumed.
        batch: samples an update, of all processes together.
        traffic: bytes that each process sends a step, by kind and piece.
        pieces: seconds, by piece of a step.
    """

    plan: Plan
    scale: Scale
    batch: int
    traffic: dict[str, dict[str, float]] = field(default_factory=dict)
    pieces: dict[str, Piece] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Seconds a step."""
        return sum(piece.compute + piece.exposed for piece in self.pieces.values())

    @property
    def images_per_second(self) -> float:
        """Samples of the generator's updates a second, of all processes together."""
        return self.batch / self.seconds

    @property
    def hiding_rate(self) -> float:
        """Bytes a second of a ring from which on no collective adds to the step."""
        sent = {name: sum(kind.get(name, 0.0) for kind in self.traffic.values()) for name in self.pieces}
        return max((sent[name] / piece.beside for name, piece in self.pieces.items() if sent[name]), default=0.0)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain numbers."""
        own = {
            **asdict(self.scale), "batch": self.batch, "traffic": self.traffic,
            "pieces": {name: asdict(piece) for name, piece in self.pieces.items()},
            "seconds_per_step": self.seconds, "images_per_second": self.images_per_second,
            "hiding_rate": self.hiding_rate,
        }  # fmt: skip
        return {**self.plan.as_dict(), "scaling": own}


def scaled_plan(config: TrainConfig, scale: Scale) -> ScaledPlan:
    """Plan a run on several GPUs.

    Args:
        config: resolved settings, as for `make_plan`.
        scale: how many GPUs, and what is assumed of them.

    Raises:
        RequestError: as `make_plan`, or a number is out of range.
    """
    if scale.processes < 1 or not 0 < scale.utilisation <= 1:
        raise RequestError(
            f"Cannot plan for {scale.processes} processes at a utilisation of {scale.utilisation:g}; expected at "
            "least one process, and a share above 0 and up to 1."
        )
    if scale.sharded and config.frozen_precision in KINDS:
        raise RequestError(
            f"Weights kept as frozen_precision={config.frozen_precision} cannot be sharded. Plan with "
            "frozen_precision=bf16, or without --sharding fsdp."
        )
    plan = make_plan(config, scale.utilisation)
    sizes = _Sizes.of(plan, config, scale.sharded)
    traffic = _traffic(plan, sizes, scale, config)
    pieces = {name: Piece(seconds) for name, seconds in plan.pieces[scale.gpu].items()}
    backward = plan.backward[scale.gpu]
    for piece in ("assistant update", "divergence", "generator"):
        updates = config.assistant_rounds if piece == "assistant update" else 1
        hidden = updates * backward["assistant" if piece == "assistant update" else "generator"]
        sent = sum(kind.get(piece, 0.0) for kind in traffic.values())
        taken = sent / (scale.ring or ring_rate(scale.gpu, scale.processes))
        beside = pieces[piece].compute if scale.sharded else hidden
        pieces[piece] = replace(pieces[piece], communication=taken, beside=beside, exposed=max(0.0, taken - beside))
    batch = config.batch_size * config.accumulation * scale.processes
    return ScaledPlan(_each(plan, sizes, scale), scale, batch, traffic, pieces)


@dataclass(frozen=True)
class _Sizes:
    """Bytes of the networks.

    Attributes:
        weights: by network, as each is kept.
        trained: of each trained network's gradients.
        blocks: by network, the share of it that its largest block is, and the share that lies outside of blocks; empty
            where weights are not cut.
        lora: whether adapters are trained.
    """

    weights: dict[str, int]
    trained: dict[str, int]
    blocks: dict[str, tuple[float, float]]
    lora: bool

    @classmethod
    def of(cls, plan: Plan, config: TrainConfig, sharded: bool) -> _Sizes:
        width = FROZEN_DTYPES[config.frozen_precision].itemsize
        base = {"reference": plan.parameters["reference"] * width}
        base["assistant"] = base["reference"]
        base["generator"] = plan.parameters.get("generator", plan.parameters["reference"]) * width
        trained = {name: count * WIDE for name, count in plan.trained.items()}
        lora = config.mode == "lora"
        weights = {
            name: trained.get(name, 0) + (size if lora or name not in trained else 0) for name, size in base.items()
        }
        blocks = {}
        if sharded:
            blocks = dict.fromkeys(base, _blocks(config.reference or "", "reference"))
        if sharded and config.generator:
            blocks["generator"] = _blocks(config.generator, "generator")
        return cls(weights, trained, blocks, lora)

    def whole(self, network: str) -> int:
        """Bytes of a sharded network that are whole at once."""
        block, rest = self.blocks[network]
        return int((rest + IN_FLIGHT * block) * self.weights[network])

    def gradients(self, network: str) -> int:
        """Bytes of the gradients of a trained network's block, and of the parcel that they leave in."""
        return int(2 * max(self.blocks[network]) * self.trained[network])


@cache
def _blocks(name: str, role: Role) -> tuple[float, float]:
    """The largest part of a network that is gathered by itself, and what is gathered with the network, as shares."""
    network = whole_network(name, role).network
    names = set(getattr(network, "_no_split_modules", None) or ())
    seen: set[int] = set()
    largest = 0
    for module in reversed(list(network.modules())[1:]):  # an inner block before the one around it, as FSDP does
        if type(module).__name__ in names:
            own = {id(weight): weight.numel() for weight in module.parameters() if id(weight) not in seen}
            seen |= own.keys()
            largest = max(largest, sum(own.values()))
    total = sum(weight.numel() for weight in network.parameters())
    rest = sum(weight.numel() for weight in network.parameters() if id(weight) not in seen)
    return largest / total, rest / total


def _traffic(plan: Plan, sizes: _Sizes, scale: Scale, config: TrainConfig) -> dict[str, dict[str, float]]:
    if scale.processes == 1:
        return {}
    if not scale.sharded:
        # Passes before an update's last one add to the gradients where they are.
        averaged = {
            "assistant update": scale.sent(sizes.trained["assistant"], 2 * config.assistant_rounds),
            "generator": scale.sent(sizes.trained["generator"], 2),
        }
        return {"gradients averaged": averaged}
    gathered, reduced = dict[str, float](), dict[str, float]()
    for piece, networks in plan.passes.items():
        for network, (forward, backward) in networks.items():
            times = config.accumulation * (forward + backward)
            gathered[piece] = gathered.get(piece, 0.0) + scale.sent(sizes.weights[network], times)
            if backward:
                sent = scale.sent(sizes.trained[network], config.accumulation * backward)
                reduced[piece] = reduced.get(piece, 0.0) + sent
    return {"weights gathered": gathered, "gradients reduced": reduced}


CUT = ("reference", "generator", "assistant", "adapters", "gradients", "optimizer", "average")


def _each(plan: Plan, sizes: _Sizes, scale: Scale) -> Plan:
    """The plan with the memory that each process needs."""
    if scale.processes == 1:
        return plan
    if not scale.sharded:
        # Gradients travel in parcels, beside which they stand until all have come.
        parcels = max(sizes.trained.values())
        standing = 0 if "gradients" in plan.resident else parcels
        return replace(plan, transient=plan.transient | {"gradients averaged": standing + parcels})
    resident = dict(plan.resident)
    if sizes.lora:  # each of three trees cuts the frozen weights for itself
        reference = sizes.weights["reference"]
        own = sizes.weights["generator"] - sizes.trained["generator"]
        frozen = {"reference": reference, "generator": own, "assistant": reference}
        resident = {"process": resident.pop("process"), **frozen} | {
            name: size for name, size in resident.items() if name not in ("reference", "generator")
        }
    resident = {name: size // scale.processes if name in CUT else size for name, size in resident.items()}
    whole_gradients = {
        name: 0 if "gradients" in plan.resident else size - size // scale.processes
        for name, size in sizes.trained.items()
    }

    def updated(network: str) -> int:
        return sizes.whole(network) + sizes.gradients(network) - whole_gradients[network]

    whole = {
        "assistant update": updated("assistant"),
        "generator forward": sizes.whole("generator"),
        "divergence": max(sizes.whole("reference"), sizes.whole("assistant")),
        "generator backward": updated("generator"),
    }
    transient = {name: size + whole.get(name, 0) for name, size in plan.transient.items()}
    return replace(plan, resident=resident, transient=transient)
