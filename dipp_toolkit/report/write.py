"""Writes `report.html` and `before_after.png` into a run folder."""

from __future__ import annotations

from pathlib import Path

from ..evaluation.intervals import LEAST_EFFECT
from ..utils.atomic import write_text
from ..utils.images import write_png
from .before_after import draw_before_after
from .charts.lines import interval_plot
from .contents import (
    column_notes,
    environment_of,
    facts_of,
    further_cards,
    has_images,
    prompts_of,
    settings_of,
    small_images,
    strip_cards,
    title_of,
    warnings_of,
)
from .curves import curves_of
from .monitor_charts import diagnosed_of, diagnoses_with_warnings, left_out, monitor_curves, monitor_warnings
from .rerun_command import again_from_config, again_from_flags
from .run_files import RunFiles, read_run
from .table import table_rows
from .templates import template
from .verdict import verdict

REPORT, PICTURE = "report.html", "before_after.png"


def render(run: RunFiles) -> str:
    """The page as text."""
    strips = strip_cards(run)
    columns = run.columns
    rows = table_rows(run, columns)
    return template(__package__, "report.html.jinja").render(
        title=title_of(run),
        name=run.name,
        verdict=verdict(run),
        least_effect=f"{LEAST_EFFECT:g}",
        facts=facts_of(run),
        warnings=warnings_of(run),
        notes=column_notes(run),
        strips=strips,
        more_cards=further_cards(run),
        pixelated=has_images(run) and small_images(run),
        prompts=prompts_of(run),
        prompt_count=len(run.comparison.prompts) if run.comparison else 0,
        seed_count=len(run.comparison.seeds) if run.comparison else 0,
        columns=columns,
        rows=rows,
        plots={
            row.name: interval_plot(row.scores, columns, f"95 % intervals of {row.name}") for row in rows if row.scores
        },
        curves=curves_of(run),
        monitor_curves=monitor_curves(run),
        monitor_warnings=monitor_warnings(run),
        looks=len(run.monitors),
        diagnosed=diagnosed_of(run),
        diagnoses=len(run.diagnostics),
        diagnoses_warned=diagnoses_with_warnings(run),
        left_out=left_out(run),
        settings=settings_of(run.config),
        given=[f"the {what} ({kind})" for what, kind in (run.summary.get("given") or {}).items()],
        again=again_from_config(run.folder),
        again_long=" \\\n  ".join(again_from_flags(run.config)),
        environment=environment_of(run.summary),
    )


def write_report(run_folder: Path) -> Path:
    """Write `report.html` and, where the run has pictures, `before_after.png`, from the files in the run folder alone.

    Args:
        run_folder: a finished run: `config.yaml`, `summary.json`, `metrics.jsonl` and `samples/comparison/`.

    Returns:
        The path of `report.html`.

    Raises:
        CheckpointError: the folder is not a finished run, or one of its files is damaged.
    """
    run = read_run(run_folder)
    if run.comparison is not None and run.comparison.images:
        images = {name: run.comparison.images[name] for name in run.columns if name in run.comparison.images}
        picture = draw_before_after(run.comparison.prompts, images, column_notes(run), run.strips)
        write_png(picture, run_folder / PICTURE, optimize=True)
    write_text(run_folder / REPORT, render(run))
    return run_folder / REPORT
