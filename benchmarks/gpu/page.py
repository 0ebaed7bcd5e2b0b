"""The rows of the benchmark as Markdown, beside what was measured before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

BEFORE = Path(__file__).parents[1] / "full_size_step" / "h100.json"
GIB = 2**30
HEAD = (
    "| case | how | s a step | before | times as fast | images/s | TFLOP | of the peak | GPU busy | kernels | "
    "peak, GiB | before | a step without waits |",
    "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows that are recorded."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def with_row(rows: Sequence[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows with a new one, in the place of an earlier one of its name."""
    names = [row["name"] for row in rows]
    if new["name"] not in names:
        return [*rows, new]
    return [new if row["name"] == new["name"] else row for row in rows]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The rows, and the page beside them; neither is ever half written."""
    for place, text in ((path, json.dumps(rows, indent=2) + "\n"), (path.with_suffix(".md"), page(rows))):
        beside = place.with_name(f".{place.name}.partial")
        beside.write_text(text, encoding="utf-8")
        beside.replace(place)


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """All rows; what failed says with what."""
    before = {row["case"]: row for row in read_rows(BEFORE) if "failed" not in row}
    lines = [_row(row, {} if row.get("dry") else before.get(row["case"], {})) for row in rows]
    ran_on = sorted({f"{row['device']}, torch {row['torch']}" for row in rows if "torch" in row})
    before_words = (
        "Before: an earlier version, eager, kernels not deterministic, [on an H100](../full_size_step/h100.md)."
    )
    words = [
        "A dry run, of tiny networks: the numbers mean nothing." if any(row.get("dry") for row in rows) else "",
        f"On {'; '.join(ran_on)}." if ran_on else "",
        before_words,
        "Random weights, bf16, HPSv2 as the reward; `dipp profile`'s steps. A step without waits is one under",
        '`torch.cuda.set_sync_debug_mode("error")`.',
    ]
    return "\n".join([*HEAD, *lines, "", *filter(None, words)]) + "\n"


def _row(row: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    if "seconds" not in row:
        return f"| {row['case']} | {row['how']} | {str(row.get('failed', '')).replace('|', '/')} |" + " |" * 10
    earlier = median(before["seconds"]) if before else None
    cells = [
        row["case"],
        row["how"],
        f"{row['seconds']:.3g}",
        f"{earlier:.3g}" if earlier else "",
        f"{earlier / row['seconds']:.2f}" if earlier else "",
        f"{row['images_per_second']:.3g}",
        f"{row['tflop']:.3g}" if row.get("tflop") else "",
        f"{row['peak_share']:.0%}" if row.get("peak_share") else "",
        f"{row['busy']:.0%}" if row.get("busy") is not None else "",
        f"{row['launches']:,}" if row.get("launches") else "",
        f"{row['peak_memory'] / GIB:.1f}",
        f"{before['peak_gib']:.1f}" if before else "",
        _waits(row),
    ]
    return f"| {' | '.join(cells)} |"


def _waits(row: Mapping[str, Any]) -> str:
    if "without_waits" not in row:
        return "not run"
    return "yes" if row["without_waits"] else str(row["waits_with"]).replace("|", "/")
