"""What `dipp plan` asks of the toolkit, and how its answer reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dipp_toolkit.errors import RequestError

from .settings import gather

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30}


def parse_memory(text: str) -> int:
    """`"24GB"` as bytes.

    Raises:
        RequestError: it is no amount of memory.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match.group(2).upper() not in UNITS or float(match.group(1)) <= 0:
        raise RequestError(f"--memory {text} is no amount of memory; expected a number with a unit, as in 24GB.")
    return int(float(match.group(1)) * UNITS[match.group(2).upper()])


def plan_run(flags: Mapping[str, Any], assignments: list[str], memory: str | None) -> dict[str, Any]:
    """Plan a run, and what fits where a memory is named.

    Raises:
        RequestError: a name is unknown, has no blueprint, or a value is out of range.
    """
    limit = parse_memory(memory) if memory is not None else None
    from dipp_toolkit.assembly import with_recommended
    from dipp_toolkit.planning import make_plan, recommend

    config = with_recommended(gather(flags, assignments))
    result = make_plan(config).as_dict()
    if limit is None:
        return result
    plan, changes = recommend(config, limit)
    recommendation = plan.as_dict() if plan is not None else None
    return {**result, "memory": limit, "fits": plan is not None, "changes": changes, "recommended": recommendation}


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f}"


def describe(result: Mapping[str, Any]) -> None:
    """Print a plan as tables and sentences."""
    from rich.table import Table

    from .tables import show

    shown = result.get("recommended") or result
    if result.get("changes") and result["fits"]:
        words = " ".join(f"--set {name}={value}" for name, value in result["changes"].items())
        print(f"As asked it peaks at {_gib(result['peak'])} GiB. To fit {_gib(result['memory'])} GiB add: {words}")
    elif result.get("fits") is False:
        print(f"Nothing fits {_gib(result['memory'])} GiB; as asked it peaks at {_gib(result['peak'])} GiB.")
    table = Table(title="parameters", title_justify="left")
    table.add_column("network")
    table.add_column("millions", justify="right")
    for name, count in shown["parameters"].items():
        table.add_row(name, f"{count / 1e6:,.1f}")
    table.add_row("trained", f"{shown['trainable'] / 1e6:,.1f}")
    show(table)
    table = Table(title="memory of a step", title_justify="left")
    for column in ("part", "GiB", ""):
        table.add_column(column, justify="right" if column == "GiB" else "left")
    for name, count in shown["resident"].items():
        table.add_row(name, _gib(count), "stays")
    worst = max(shown["transient"], key=shown["transient"].get)
    for name, count in shown["transient"].items():
        table.add_row(name, _gib(count), "the worst moment" if name == worst else "comes and goes")
    table.add_row("peak", _gib(shown["peak"]), "everything that stays, and the worst moment")
    show(table)
    print(
        f"While prompts are encoded, once and before the first step, the text encoders take "
        f"{_gib(shown['text_encoders'])} GiB beside the frozen networks."
    )
    table = Table(title=f"{shown['flops_per_step'] / 1e12:,.1f} TFLOP a step", title_justify="left")
    table.add_column("GPU")
    table.add_column("seconds a step, estimated", justify="right")
    for name, seconds in shown["seconds"].items():
        table.add_row(name, f"{seconds:.2f}")
    show(table)
    print("Seconds assume 40 % of the published dense peak; memory and operations are those of the real networks.")
