"""The page of the recorded results: a table for each world, and what the numbers say of the aims."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._shared.emoji_columns import NOISES
from benchmarks.emoji_quality.aims import aims_of, interval_text
from dipp_toolkit.evaluation.intervals import Interval

FIRST = "emoji"
"""The world whose numbers are in `results.json`; those of another are in `results-NAME.json`."""


def results_file(folder: Path, world: str) -> Path:
    """Where a world's numbers are."""
    return folder / ("results.json" if world == FIRST else f"results-{world}.json")


def read_sections(folder: Path) -> dict[str, dict[str, Any]]:
    """Every world's numbers that a folder has, the first world first."""
    files = [results_file(folder, FIRST), *sorted(folder.glob("results-*.json"))]
    return {
        path.stem.removeprefix("results").removeprefix("-") or FIRST: json.loads(path.read_text(encoding="utf-8"))
        for path in files
        if path.is_file()
    }


def _cell(row: Mapping[str, Any], figure: str, digits: str) -> str:
    """A number with its interval, where one was measured."""
    interval = row.get(f"{figure}_interval")
    return interval_text(Interval(**interval), digits) if interval is not None else f"{row[figure]:{digits}}"


def table(section: Mapping[str, Any]) -> str:
    """A world's numbers as Markdown."""
    lines = [
        "| column | evaluations an image | judge names it | judge's preference (95 % interval) "
        "| Frechet distance | diversity | ms an image |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in section["columns"].items():
        took = f"{row['milliseconds']:.1f}" if "milliseconds" in row else "-"
        lines.append(
            f"| {name} | {row.get('evaluations', '-')} | {100 * row['naming']:.1f} % "
            f"| {interval_text(Interval(**row['preference']))} | {_cell(row, 'frechet', '.2f')} "
            f"| {_cell(row, 'diversity', '.3f')} | {took} |"
        )
    lines += [
        "",
        "The first row's Frechet distance, real against real, is the floor. "
        f"{section['images']} images a column, {section['prompts']} held-out prompts, "
        f"{NOISES} noises each. Ran on {section['machine']}.",
    ]
    return "\n".join(lines) + "\n"


def aims_text(section: Mapping[str, Any]) -> str:
    """What the numbers say of the aims, as Markdown."""
    aims = aims_of(section)
    met = sum(aim.verdict != "not met" for aim in aims)
    searched = section["reference_guidance"]
    lines = [f"Of {len(aims)} aims {met} {'is' if met == 1 else 'are'} met. Ratios are over the reference's."]
    if "prompts" in searched:
        lines[0] += (
            f" The reference's guidance is the best of {len(searched['preference_by_guidance'])} by the judge on other "
            f"prompts, `{searched['prompts']}`."
        )
    lines += ["", *(f"- *{aim.verdict[0].upper()}{aim.verdict[1:]}*: {aim.text}: {aim.found}." for aim in aims)]
    return "\n".join(lines) + "\n"


def page(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """All worlds, each under the names of its reference and its generator."""
    return "\n".join(
        f"**`{name}-reference`, `{name}-onestep`**\n\n{table(section)}\n{aims_text(section)}"
        for name, section in sections.items()
    )
