"""Writes `report.html` and `before_after.png` into a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from ..config import TrainConfig
from ..run_folder import write_text
from .chart import interval_plot
from .command import again_from_config, again_from_flags, setting_text
from .curves import curves_of
from .numbers import finite, table_rows
from .picture import draw_before_after
from .run_files import RunFiles, read_run
from .thumbnails import PIXEL_ART, Thumbnail, evenly, thumbnail
from .verdict import verdict

REPORT, PICTURE = "report.html", "before_after.png"
SHOWN = 12
"""Prompts that are shown at once; the others are folded away below them."""
MOST_SMALL, MOST_LARGE = 64, 24
"""Most prompts in the page, for images that are small and for such that have to be shrunk."""
FEW_PROMPTS = 10


@dataclass(frozen=True)
class PromptCard:
    """One prompt with its images, by column."""

    prompt: str
    images: Sequence[tuple[str, Thumbnail]]


@dataclass(frozen=True)
class Setting:
    """One row of the settings table."""

    name: str
    value: str
    meaning: str
    changed: bool


def column_notes(run: RunFiles) -> dict[str, str]:
    """A few words on how each column's images were made."""
    return {"reference": f"{run.reference_steps} steps", "before": "1 step", "after": "1 step"}


def prompt_cards(run: RunFiles) -> list[PromptCard]:
    """Prompts with images, evenly chosen; the first noise of each."""
    if run.comparison is None or not run.comparison.images:
        return []
    images = run.comparison.images
    columns = [name for name in run.columns if name in images]
    small = max(images[columns[0]].shape[-2:]) <= PIXEL_ART
    return [
        PromptCard(
            run.comparison.prompts[row],
            [(name, thumbnail(images[name][row, 0], f"{run.comparison.prompts[row]}, {name}")) for name in columns],
        )
        for row in spread_out(evenly(len(run.comparison.prompts), MOST_SMALL if small else MOST_LARGE))
    ]


def spread_out(rows: list[int]) -> list[int]:
    """The same rows, the evenly spaced ones that are shown at once first."""
    first = [rows[index] for index in evenly(len(rows), SHOWN)]
    return first + [row for row in rows if row not in set(first)]


def settings_of(config: TrainConfig) -> list[Setting]:
    """Every setting with its meaning; those that differ from the toolkit's own default are marked."""
    return [
        Setting(
            name,
            setting_text(getattr(config, name)) if getattr(config, name) is not None else "none",
            field.description or "",
            getattr(config, name) != field.get_default(call_default_factory=True),
        )
        for name, field in TrainConfig.model_fields.items()
        if name not in {"out", "resume"}
    ]


def title_of(config: TrainConfig) -> str:
    """What the run did, as a title."""
    generator, reference = _short(config.generator), _short(config.reference)
    if not config.rewards:
        return f"Distilling {reference} into {generator or 'one step'}"
    *first, last = (_short(name) for name in config.rewards)
    return f"Aligning {generator or reference} to {', '.join(first) + ' and ' if first else ''}{last}"


def _short(name: str | None) -> str:
    """A registered name as it is, a path by its last part."""
    return (name or "").removeprefix("diffusers:").rstrip("/").split("/")[-1]


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def facts_of(run: RunFiles) -> list[tuple[str, str]]:
    """The run in a few words: names and numbers."""
    config, summary = run.config, run.summary
    steps = int(finite(summary.get("steps")) or config.steps)
    seconds = finite(summary.get("seconds"))
    rates = sorted(row["images_per_second"] for row in run.metrics if "images_per_second" in row)
    memory = max((row["memory_mb"] for row in run.metrics if "memory_mb" in row), default=None)
    facts = [
        ("generator", _short(config.generator) or "the reference's own network, read out in one step"),
        ("reference", _short(config.reference)),
        (
            "rewards",
            ", ".join(f"{_short(name)}\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}{weight:g}" for name, weight in config.rewards.items()),
        ),
        ("training", f"{steps:,} steps of {config.batch_size} images"),
        ("time", duration(seconds) if seconds is not None else ""),
        ("speed", f"{rates[len(rates) // 2]:.3g} images a second" if rates else ""),
        ("peak memory", f"{memory / 1024:.1f} GiB" if memory else ""),
        ("seed", str(config.seed)),
    ]
    return [(name, value) for name, value in facts if value]


def warnings_of(run: RunFiles) -> list[str]:
    """The run's own warnings, and what the report itself has to warn of."""
    found = [str(one) for one in run.summary.get("warnings") or []]
    if run.comparison is None:
        found.append("There are no pictures: the run left no samples/comparison.")
    elif len(run.comparison.prompts) < FEW_PROMPTS:
        count = len(run.comparison.prompts)
        found.append(
            f"The numbers come from {count} prompt{'s' * (count != 1)} only, so their intervals are rough; "
            "raise eval_count."
        )
    return found


def render(run: RunFiles) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    cards = prompt_cards(run)
    columns = run.columns
    rows = table_rows(run, columns)
    return environment.get_template("report.html.jinja").render(
        title=title_of(run.config),
        name=run.name,
        verdict=verdict(run),
        facts=facts_of(run),
        warnings=warnings_of(run),
        notes=column_notes(run),
        cards=cards[:SHOWN],
        more_cards=cards[SHOWN:],
        pixelated=bool(cards) and max(cards[0].images[0][1].width, cards[0].images[0][1].height) <= PIXEL_ART,
        prompt_count=len(run.comparison.prompts) if run.comparison else 0,
        seed_count=len(run.comparison.seeds) if run.comparison else 0,
        columns=columns,
        rows=rows,
        plots={
            row.name: interval_plot(row.scores, columns, f"95 % intervals of {row.name}") for row in rows if row.scores
        },
        curves=curves_of(run),
        settings=settings_of(run.config),
        again=again_from_config(run.folder),
        again_long=" \\\n  ".join(again_from_flags(run.config)),
        environment=environment_of(run.summary),
    )


def environment_of(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """`summary["environment"]`, names of programs and machines with their versions, as text."""
    found = summary.get("environment")
    return (
        [(str(name).replace("_", "-"), str(value)) for name, value in found.items()]
        if isinstance(found, Mapping)
        else []
    )


def write_report(run_folder: Path) -> Path:
    """Write `report.html` and, where the run has pictures, `before_after.png`, from the files in the run folder alone.

    Args:
        run_folder: a finished run: `config.yaml`, `summary.json`, `metrics.jsonl` and `samples/comparison/`.

    Returns:
        The path of `report.html`.

    Raises:
        CheckpointError: the folder is no finished run, or one of its files is damaged.
    """
    run = read_run(run_folder)
    if run.comparison is not None and run.comparison.images:
        images = {name: run.comparison.images[name] for name in run.columns if name in run.comparison.images}
        picture = draw_before_after(run.comparison.prompts, images, column_notes(run))
        beside = run_folder / f".{PICTURE}.partial"
        picture.save(beside, "PNG", optimize=True)
        beside.replace(run_folder / PICTURE)
    write_text(run_folder / REPORT, render(run))
    return run_folder / REPORT
