"""Puts plans of three models on 1, 8 and 64 GPUs into `docs/operations/scaling.md`: python tools/build_scaling.py"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dipp_toolkit.config import TrainConfig, make_config
from dipp_toolkit.planning.machines import GPUS, LAUNCH, LINKS, NODE, REWARD_UTILISATION, UTILISATION, ring_rate
from dipp_toolkit.planning.scaling import Scale, ScaledPlan, Sharding, scaled_plan

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "operations" / "scaling.md"
GIB = 2**30
LIMIT = GPUS["H100"][2] * 1e9
COUNTS = (1, 8, 64)
SPARING = {"recompute_generator": True, "gradient_checkpointing": True, "decode_checkpointing": True}
NETWORKS = {
    "an adapter a GPU, 400 Gb/s": NODE * LINKS["H100"][1],
    "an adapter a node, 400 Gb/s": LINKS["H100"][1],
    "100 Gb/s Ethernet": 12.5e9,
}
"""Bytes a second that leave a node."""


@dataclass(frozen=True)
class Model:
    """What is planned.

    Attributes:
        title: of its tables.
        reference: its name.
        batch: samples a micro-batch of one GPU.
        guidance: alpha_cfg.
        more: further settings.
    """

    title: str
    reference: str
    batch: int
    guidance: float = 4.5
    more: dict[str, Any] = field(default_factory=dict)

    def config(self, mode: str, **changes: Any) -> TrainConfig:
        """The settings that are planned."""
        settings = {
            "reference": self.reference, "rewards": "hps,imagereward", "mode": mode, "batch_size": self.batch,
            "guidance": self.guidance, "precision": "bf16", "frozen_precision": "bf16", **self.more, **changes,
        }  # fmt: skip
        return make_config(settings)

    def plan(self, mode: str, count: int, sharding: Sharding = "none", **changes: Any) -> ScaledPlan:
        """Its plan on so many GPUs."""
        ring = changes.pop("ring", None)
        return scaled_plan(self.config(mode, **changes), Scale(count, sharding, ring=ring))


MODELS = {
    "pixart": Model("PixArt-alpha", "pixart-alpha", 4),
    "sdxl": Model("SDXL", "sdxl", 4, more=SPARING),
    "flux": Model("FLUX.1-dev", "flux", 1, guidance=1.0, more=SPARING),
}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, its first column to the left."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def number(value: float) -> str:
    """Three digits, or nothing."""
    return "" if not value else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def fits(made: ScaledPlan) -> bool:
    """Whether it fits the GPU."""
    return made.plan.peak <= LIMIT


def assumptions() -> str:
    """What all tables assume."""
    inside, outside = LINKS["H100"]
    return table(
        ["assumed of an H100", "", "from"],
        [
            ["dense bf16 peak", f"{GPUS['H100'][0]:.0f} TFLOP/s", "data sheet"],
            ["share of it that long passes reach", f"{UTILISATION:.0%}", "assumed"],
            ["share of it that decoding and scoring reach", f"{REWARD_UTILISATION:.0%}", "measured"],
            ["a call, before its kernel runs", f"{LAUNCH * 1e6:.0f} microseconds", "measured"],
            ["memory", f"{GPUS['H100'][2]} GB ({LIMIT / GIB:.1f} GiB)", "data sheet"],
            [f"NVLink, to the other {NODE - 1} of a node", f"{inside / 1e9:.0f} GB/s a direction", "data sheet"],
            ["InfiniBand, out of the node", f"{outside / 1e9:.0f} GB/s a GPU", "data sheet of DGX H100"],
            ["a ring in a node", f"{ring_rate('H100', 8) / 1e9:.0f} GB/s", "`ring_rate`"],
            ["a ring through full nodes", f"{ring_rate('H100', 64) / 1e9:.0f} GB/s", "`ring_rate`"],
        ],
    )  # fmt: skip


def setups() -> str:
    """What is planned."""
    rows = []
    for model in MODELS.values():
        plan = model.plan("lora", 1).plan
        full = model.plan("full", 1).plan
        rows.append(
            [
                model.title, f"{plan.parameters['reference'] / 1e9:.2f}", f"{plan.trainable / 1e9:.2f}",
                f"{full.trainable / 1e9:.2f}", str(model.batch), f"{model.guidance:g}",
                "graphs recomputed" if model.more else "graphs kept",
            ]
        )  # fmt: skip
    head = ["model", "B parameters", "B trained, lora", "B trained, full", "samples a micro-batch", "guidance", ""]
    return table(head, rows)


def memory(model: Model) -> str:
    """Memory of each GPU, by part."""
    arrangements: list[tuple[str, int, Sharding]] = [
        ("lora", 1, "none"), ("lora", 8, "fsdp"), ("lora", 64, "fsdp"),
        ("full", 1, "none"), ("full", 8, "none"), ("full", 8, "fsdp"), ("full", 64, "fsdp"),
    ]  # fmt: skip
    plans = [model.plan(*arrangement) for arrangement in arrangements]
    head = [
        f"{mode}, {count} GPU{'s' if count > 1 else ''}{', sharded' if sharding == 'fsdp' else ''}"
        for mode, count, sharding in arrangements
    ]
    parts = dict.fromkeys(name for made in plans for name in made.plan.resident)
    rows = [
        [name, *(f"{made.plan.resident[name] / GIB:.2f}" if name in made.plan.resident else "" for made in plans)]
        for name in parts
    ]
    worst = [max(made.plan.transient, key=made.plan.transient.__getitem__) for made in plans]
    rows.append(
        [
            "the worst moment",
            *(f"{made.plan.transient[name] / GIB:.1f}" for made, name in zip(plans, worst, strict=True)),
        ]
    )
    rows.append(["which is", *worst])
    rows.append(["**peak, GiB**", *(f"**{made.plan.peak / GIB:.1f}**" for made in plans)])
    rows.append(["fits 80 GB", *("yes" if fits(made) else "no" for made in plans)])
    return table(["part", *head], rows)


def steps(model: Model) -> str:
    """Seconds of a step, and what is sent."""
    rows = []
    for mode in ("lora", "full"):
        for count in COUNTS:
            for sharding in ("none", "fsdp") if count > 1 else ("none",):
                made = model.plan(mode, count, sharding)
                sent = sum(sum(kind.values()) for kind in made.traffic.values())
                rows.append(
                    [
                        mode, str(count), "sharded" if sharding == "fsdp" else "whole",
                        "yes" if fits(made) else "no", str(made.batch), f"{made.seconds:.2f}",
                        number(made.images_per_second), number(sent / 1e9),
                        number(sum(piece.communication for piece in made.pieces.values())),
                        number(sum(piece.exposed for piece in made.pieces.values())) or "0",
                        number(made.hiding_rate / 1e9),
                    ]
                )  # fmt: skip
    head = [
        "mode", "GPUs", "weights", "fits 80 GB", "samples a step", "s a step", "images/s", "GB sent by each",
        "s of collectives", "s exposed", "GB/s that hides them",
    ]  # fmt: skip
    return table(head, rows)


def shares() -> str:
    """Where the time of a step goes."""
    rows, names = [], list[str]()
    for model in MODELS.values():
        for mode in ("lora", "full"):
            pieces = model.plan(mode, 1).pieces
            total = sum(piece.compute for piece in pieces.values())
            names = list(pieces)
            rows.append([f"{model.title}, {mode}", *(f"{piece.compute / total:.0%}" for piece in pieces.values())])
    return table(["", *names], rows)


def least() -> str:
    """The fewest GPUs that do."""
    rows = []
    for model in MODELS.values():
        for mode in ("lora", "full"):
            whole = "yes" if fits(model.plan(mode, 1)) else "no"
            fewest = next((count for count in (1, 2, 4, 8, 16, 32, 64) if fits(model.plan(mode, count, "fsdp"))), None)
            rows.append([f"{model.title}, {mode}", whole, str(fewest) if fewest else "more than 64"])
    return table(["", "fits one GPU whole", "fewest GPUs, sharded"], rows)


def measured() -> str:
    """Steps on one GPU beside their plans."""
    text = (ROOT / "benchmarks" / "full_size_step" / "h100.md").read_text(encoding="utf-8")
    return text.partition("\n\n")[0]


def batches() -> str:
    """What a larger batch costs one GPU."""
    rows = []
    for batch in (1, 4, 16):
        made = MODELS["pixart"].plan("full", 1, batch_size=batch, **SPARING)
        rows.append([str(batch), f"{made.seconds:.2f}", number(made.images_per_second), f"{made.plan.peak / GIB:.1f}"])
    return table(["PixArt-alpha, full, samples a micro-batch", "s a step", "images/s", "peak, GiB"], rows)


def slower() -> str:
    """Seconds of a step on 64 GPUs with slower networks between nodes."""
    rows = []
    for model in MODELS.values():
        for mode in ("lora", "full"):
            for sharding in ("none", "fsdp"):
                made = [
                    model.plan(mode, 64, sharding, ring=min(ring_rate("H100", 8), rate)) for rate in NETWORKS.values()
                ]
                if fits(made[0]):
                    words = "sharded" if sharding == "fsdp" else "whole"
                    rows.append([f"{model.title}, {mode}, {words}", *(f"{plan.seconds:.2f}" for plan in made)])
    return table(["64 GPUs, s a step", *NETWORKS], rows)


def accumulation() -> str:
    """What more micro-batches an update change."""
    rows = []
    for sharding in ("none", "fsdp"):
        for passes in (1, 4, 16):
            made = MODELS["pixart"].plan("full", 64, sharding, accumulation=passes, ring=NETWORKS["100 Gb/s Ethernet"])
            sent = sum(sum(kind.values()) for kind in made.traffic.values())
            rows.append(
                [
                    f"{'sharded' if sharding == 'fsdp' else 'whole'}, {passes} micro-batch{'es' if passes > 1 else ''}",
                    str(made.batch), f"{made.plan.peak / GIB:.1f}",
                    number(sent / made.batch * made.scale.processes / 1e9), f"{made.seconds:.2f}",
                    number(made.images_per_second),
                ]
            )  # fmt: skip
    head = [
        "PixArt-alpha, full, 64 GPUs, 100 Gb/s",
        "samples a step",
        "peak, GiB",
        "GB sent a sample",
        "s a step",
        "images/s",
    ]
    return table(head, rows)


TABLES: dict[str, Callable[[], str]] = {
    "assumptions": assumptions,
    "setups": setups,
    "least": least,
    "measured": measured,
    "batches": batches,
    "shares": shares,
    **{f"{name}-memory": partial(memory, model) for name, model in MODELS.items()},
    **{f"{name}-steps": partial(steps, model) for name, model in MODELS.items()},
    "slower": slower,
    "accumulation": accumulation,
}


def render() -> str:
    """The page with its tables as they are now."""
    text = TARGET.read_text(encoding="utf-8")
    for mark, make in TABLES.items():
        before, _, rest = text.partition(f"<!-- {mark} -->")
        after = rest.partition(f"<!-- /{mark} -->")[2]
        text = f"{before}<!-- {mark} -->\n{make()}\n<!-- /{mark} -->{after}"
    return text


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
