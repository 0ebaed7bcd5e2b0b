"""What was measured beside what `dipp plan` says of the same step, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

GIB = 2**30


def read_results(path: Path) -> list[dict[str, Any]]:
    """Results by case, those that are known."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write_results(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """The results, and the page beside them."""
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(page(results), encoding="utf-8")


def with_result(results: Sequence[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The results with a new one, in place of an earlier one of the same case."""
    return [result for result in results if result["case"] != new["case"]] + [new]


def predicted(result: dict[str, Any]) -> dict[str, Any]:
    """What `dipp plan` says of the same step: memory in GiB, operations by part, and what three full copies need."""
    from dipp_toolkit.config import TrainConfig
    from dipp_toolkit.planning.estimate import make_plan
    from dipp_toolkit.planning.machines import GPUS

    device = "cuda" if peak_rate(result["ran_on"]) else "cpu"
    own = {"rewards": {"hps": 1.0}, "reward_options": {"hps": {"precision": "bf16"}}}  # as `reward.py` runs it
    config = TrainConfig(reference=result["pipeline"], device=device, **own, **result["settings"])
    plan = make_plan(config)
    full = plan if config.mode == "full" else make_plan(config.model_copy(update={"mode": "full"}))
    process = plan.resident["process"]
    return {
        "peak_gib": plan.peak / GIB,
        "tensors_gib": (plan.peak - process) / GIB,
        "full_gib": full.peak / GIB,
        "seconds": next((plan.seconds[name] for name in GPUS if name in result["ran_on"]), None),
        "tflop": {
            "reward (decode, HPSv2, backward)" if part == "reward hps" else part: count / 1e12
            for part, count in plan.flops.items()
        },
    }


def peak_rate(ran_on: str) -> float | None:
    """The published dense half-precision peak of a GPU, in TFLOP/s."""
    from dipp_toolkit.planning.machines import GPUS

    return next((rates[0] for name, rates in GPUS.items() if name in ran_on), None)


def page(results: Sequence[dict[str, Any]]) -> str:
    """All results as Markdown; what a plan says stands where one was made."""
    done = [result for result in results if "failed" not in result]
    rows = [
        "| case | seconds a step | planned | images/s | TFLOP a step | of the peak rate | peak, measured | "
        "peak, planned | three full copies, planned |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in done:
        seconds, rate, plan = median(result["seconds"]), peak_rate(result["ran_on"]), result.get("predicted", {})
        own = plan.get("tensors_gib" if rate else "peak_gib")
        tflop = sum(part.get("tflop", 0) for part in result["parts"].values())
        planned = f"{own:.2f} GiB ({own / result['peak_gib'] - 1:+.0%})" if own else ""
        full = f"{plan['full_gib']:.2f} GiB" if plan else ""
        rows.append(
            f"| {result['case']} | {seconds:.3g} | {_number(plan.get('seconds') or 0)} | "
            f"{result['batch'] / seconds:.3g} | {_number(tflop)} | {_share(tflop, seconds, rate)} | "
            f"{result['peak_gib']:.2f} GiB | {planned} | {full} |"
        )
    rows += [f"| {result['case']} | {result['failed']} | | | | | | | |" for result in results if "failed" in result]
    return "\n".join([*rows, *(line for result in done for line in _parts(result))]) + "\n"


def _parts(result: dict[str, Any]) -> list[str]:
    rate, plan = peak_rate(result["ran_on"]), result.get("predicted", {}).get("tflop", {})
    rows = [
        "",
        f"{result['case']}, by part ({result['ran_on']}; held before the first step {result['held_gib']:.2f} GiB):",
        "",
        "| part | seconds a step | TFLOP | planned | of the peak rate | memory at its peak |",
        "|---|---|---|---|---|---|",
    ]
    for name, part in result["parts"].items():
        tflop = part.get("tflop", 0)
        if name not in ("assemble", "step"):
            rows.append(
                f"| {name} | {part['seconds']:.3g} | {_number(tflop)} | {_number(plan.get(name, 0))} | "
                f"{_share(tflop, part['seconds'], rate)} | {part['peak_gib']:.2f} GiB |"
            )
    return rows


def _number(value: float) -> str:
    return f"{value:.3g}" if value else ""


def _share(tflop: float, seconds: float, peak: float | None) -> str:
    return f"{tflop / seconds / peak:.0%}" if peak and seconds and tflop else ""
