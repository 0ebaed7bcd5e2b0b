"""What `dipp plan` does: plan a run before anything is downloaded, and show what it needs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

from dipp_toolkit.errors import RequestError
from dipp_toolkit.utils.collection import without_collection

from ..terminal.output import print_line
from .settings import gather

if TYPE_CHECKING:
    from dipp_toolkit.config import TrainConfig
    from dipp_toolkit.planning.estimate import Plan
    from dipp_toolkit.planning.scaling import ScaledPlan

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30}


def parse_memory(text: str) -> int:
    """`"24GB"` as bytes.

    Raises:
        RequestError: it is not an amount of memory.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match.group(2).upper() not in UNITS or float(match.group(1)) <= 0:
        raise RequestError(f"--memory {text} is not an amount of memory; expected a number with a unit, as in 24GB.")
    return int(float(match.group(1)) * UNITS[match.group(2).upper()])


@without_collection()
def plan_run(
    flags: Mapping[str, Any],
    assignments: list[str],
    memory: str | None,
    processes: int | None = None,
    sharding: str | None = None,
    utilisation: float | None = None,
    config_file: Path | None = None,
) -> dict[str, Any]:
    """Plan a run, and what fits where a memory is named.

    Args:
        flags: settings by name; None where one was not given.
        assignments: what `--set` gives.
        memory: of each GPU, as `parse_memory` reads it.
        processes: one a GPU; None for a plan without what joins them.
        sharding: `"none"` or `"fsdp"`.
        utilisation: share of a GPU's published peak that is assumed.
        config_file: YAML file of settings, such as a run's `config.yaml`.

    Raises:
        RequestError: a name is unknown, has no blueprint, or a value is out of range.
    """
    limit = parse_memory(memory) if memory is not None else None
    if sharding not in (None, "none", "fsdp"):
        raise RequestError(f"--sharding {sharding} is unknown; expected none or fsdp.")
    if sharding == "fsdp" and processes is None:
        raise RequestError(
            "--sharding fsdp cuts networks into one part per process; give their number with --processes."
        )
    chosen = gather(flags, assignments, config_file)
    from dipp_toolkit.planning.ahead import made_ahead
    from dipp_toolkit.planning.bounds import least_peak
    from dipp_toolkit.planning.recommend import likely_dry_runs, recommend
    from dipp_toolkit.planning.scaling import Scale, scaled_plan
    from dipp_toolkit.training.setup.resolve import with_recommended

    config = with_recommended(chosen)
    given = {"processes": processes, "sharding": sharding, "utilisation": utilisation}
    scale = Scale(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]

    def described(made: ScaledPlan) -> dict[str, Any]:
        return made.as_dict() if processes is not None else made.plan.as_dict()

    def plan(changes: Mapping[str, Any]) -> dict[str, Any]:
        return described(scaled_plan(config.model_copy(update=dict(changes)), scale))

    if limit is None:
        return plan({})

    def plan_of(changed: TrainConfig) -> Plan:
        return scaled_plan(changed, scale).plan

    least_of = None if scale.sharded else least_peak  # a part of what one alone keeps is each process's
    with made_ahead([] if scale.sharded else likely_dry_runs(config, limit)):
        asked = scaled_plan(config, scale)
        fitting, changes = recommend(config, limit, plan_of, not scale.sharded, least_of, [(config, asked.plan)])
    result = described(asked)
    advice = {"memory": limit, "fits": fitting is not None, "changes": changes}
    if fitting is not None:
        return {**result, **advice, "recommended": plan(changes)}
    thriftiest = config.model_copy(update=dict(changes))
    least = plan(changes)["peak"] if least_of is None else least_of(thriftiest)
    return {**result, **advice, "recommended": None, "least": least}


PATIENCE = 2.0
"""Seconds after which a plan says that it is at work."""


@contextmanager
def announced_when_slow(seconds: float = PATIENCE) -> Iterator[None]:
    """Print a line to stderr where what is inside takes longer than that."""

    def announce() -> None:
        print_line(
            "Building the networks without their weights, and running a step of them on tensors without memory ...",
            file=sys.stderr,
            flush=True,
        )

    timer = Timer(seconds, announce)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


MAIN = ("generator", "reference", "mode", "batch_size", "precision", "frozen_precision")
"""Settings that stand above a plan's tables whatever they are; the others do where they are not the defaults."""


def settings_line(settings: Mapping[str, Any]) -> str:
    """The settings that a plan's tables are about, as they would be typed after `--set`."""
    from dipp_toolkit.config import TrainConfig

    words = []
    for name, value in settings.items():
        if name in MAIN or value != TrainConfig.model_fields[name].get_default(call_default_factory=True):
            if value is None:
                continue
            text = ",".join(f"{key}={share:g}" for key, share in value.items()) if isinstance(value, dict) else value
            words.append(f"{name}={text}")
    return " ".join(words)


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f}"


def _assignments(changes: Mapping[str, Any]) -> str:
    """Changes of settings as they would be typed."""
    return " ".join(f"--set {name}={value}" for name, value in changes.items())


def _describe_advice(result: Mapping[str, Any]) -> None:
    """Print what to change where the run as asked does not fit the memory."""
    from dipp_toolkit.models.quantized_layers import KINDS
    from dipp_toolkit.planning.estimate import MARGIN

    if result.get("changes") and result["fits"]:
        print_line(
            f"As requested it peaks at {_gib(result['peak'])} GiB. To fit {_gib(result['memory'])} GiB "
            f"with {MARGIN:.0%} to spare, add: {_assignments(result['changes'])}"
        )
        kind = result["changes"].get("frozen_precision")
        if kind in KINDS:
            print_line(
                f"{kind} rounds the frozen weights and so changes what is learnt, nf4 far more than int8; it needs "
                "pip install 'dipp-toolkit[8bit]'."
            )
    elif result.get("fits") is False:
        print_line(
            f"Nothing fits {_gib(result['memory'])} GiB with {MARGIN:.0%} to spare; as requested it peaks at "
            f"{_gib(result['peak'])} GiB, and with all that saves memory ({_assignments(result['changes'])}) at no "
            f"less than {_gib(result['least'])} GiB. Smaller or fewer rewards, or smaller images for them "
            "(reward_resolution), are left."
        )


def describe(result: Mapping[str, Any]) -> None:
    """Print a plan as tables and sentences."""
    from rich.table import Table

    from ..terminal.tables import show

    plan = result.get("recommended") or result
    _describe_advice(result)
    print_line(f"Planned: {settings_line(plan['settings'])}")
    table = Table(title="parameters", title_justify="left")
    table.add_column("network")
    table.add_column("millions", justify="right")
    for name, count in plan["parameters"].items():
        table.add_row(name, f"{count / 1e6:,.1f}")
    table.add_row("trained", f"{plan['trainable'] / 1e6:,.1f}")
    show(table)
    describe_rewards(plan)
    table = Table(title="memory of a step", title_justify="left")
    for column in ("part", "GiB", ""):
        table.add_column(column, justify="right" if column == "GiB" else "left")
    for name, count in plan["resident"].items():
        table.add_row(name, _gib(count), "resident")
    worst = max(plan["transient"], key=plan["transient"].get)
    for name, count in plan["transient"].items():
        table.add_row(name, _gib(count), "the peak" if name == worst else "temporary")
    table.add_row("peak", _gib(plan["peak"]), "all that is resident, and the largest temporary part")
    show(table)
    if "CUDA graphs" in plan["resident"]:
        print_line(
            "What CUDA graphs hold is an estimate: the most that a pass of the networks needs, which nothing else can "
            "use."
        )
    offloaded = f"The host's memory holds {_gib(plan['offloaded'])} GiB of activations. " if plan["offloaded"] else ""
    print_line(
        f"{offloaded}A checkpoint is copied to {_gib(plan['checkpoint'])} GiB of the host's memory. "
        "While prompts are encoded, once and before the first step, the text encoders take "
        f"{_gib(plan['text_encoders'])} GiB beside the frozen networks."
    )
    if "scaling" in plan:
        describe_scaling(plan["scaling"])
        gpu = plan["scaling"]["gpu"]
        if plan["seconds"][gpu] is None:
            print_line(f"One {gpu} does not hold what each process needs.")
    else:
        table = Table(title=f"{plan['flops_per_step'] / 1e12:,.1f} TFLOP a step", title_justify="left")
        table.add_column("GPU")
        table.add_column("seconds a step, estimated", justify="right")
        updates = plan["settings"].get("assistant_warmup")
        if updates:
            table.add_column(
                f"seconds of the assistant's warm-up, {updates} updates before the first step", justify="right"
            )
        for name, seconds in plan["seconds"].items():
            warm_up = [f"{plan['warm_up'][name] or 0:.0f}"] if updates and seconds is not None else []
            table.add_row(name, "does not fit" if seconds is None else f"{seconds:.2f}", *warm_up)
        show(table)
    print_line(
        f"Seconds assume {plan['utilisation']:.0%} of the published dense peak, or what starting the kernels takes, "
        "where that is longer; memory and operations are those of the real networks."
    )


def describe_rewards(plan: Mapping[str, Any]) -> None:
    """Print which rewards are not counted in full, and why."""
    if plan["uncounted"]:
        print_line(
            f"Not counted: the networks of {', '.join(plan['uncounted'])}, which have no blueprint; "
            "of these rewards only the decoding is counted."
        )
    if plan["latent"]:
        print_line(
            f"Learned on latents: {', '.join(plan['latent'])}. Seconds and operations count one sample in "
            f"{plan['settings']['latent_every']}, as while what stands in is trusted; memory is that of an update that "
            "scores all."
        )


def describe_scaling(scaling: Mapping[str, Any]) -> None:
    """Print what joins the processes of a plan: where the time goes, and what is sent."""
    from rich.table import Table

    from ..terminal.tables import show

    sharded = "weights sharded" if scaling["sharding"] == "fsdp" else "weights whole in each"
    table = Table(title=f"a step on {scaling['processes']} {scaling['gpu']}, {sharded}", title_justify="left")
    table.add_column("piece")
    for column in ("seconds of passes", "of collectives", "exposed", *(f"GB {kind}" for kind in scaling["traffic"])):
        table.add_column(column, justify="right")
    for name, piece in scaling["pieces"].items():
        numbers = [f"{piece[key]:.3f}" for key in ("compute", "communication", "exposed")]
        table.add_row(name, *numbers, *(f"{kind.get(name, 0) / 1e9:.1f}" for kind in scaling["traffic"].values()))
    show(table)
    print_line(
        f"{scaling['batch']} samples a step, {scaling['seconds_per_step']:.2f} s a step, "
        f"{scaling['images_per_second']:.1f} images a second in all; memory is that of each process."
    )
    if scaling["traffic"]:
        print_line("Collectives are assumed at the published rates of NVLink and InfiniBand, and hidden behind passes.")
