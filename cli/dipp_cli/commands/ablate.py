"""`dipp ablate`: what settings do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options
from ..setting_flags import add_command

GENERATOR = "emoji-onestep"
SETTINGS = ("generator", "reference", "rewards", "prompts", "judge", "steps", "batch_size", "device")


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, ablate, SETTINGS, panel="Compare")


def ablate(
    flags: dict[str, Any],
    *,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE,...",
            help="A setting and its values; | between values that hold commas: 'rewards=hps|hps=2,clip'. Repeatable.",
        ),
    ] = None,
    cells: Annotated[
        Path | None,
        typer.Option(metavar="YAML", help="A list of cells, each a mapping of settings, in place of --vary."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(metavar="N", help="Train every cell with seeds 0 to N - 1; short for --vary seed=0,1,..."),
    ] = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    measured_rewards: Annotated[
        str, typer.Option("--measure", metavar="NAME,...", help="Rewards to measure beside those trained on.")
    ] = "",
    metrics: Annotated[str, typer.Option(metavar="NAME,...", help="Metrics to measure, such as fid.")] = "",
    noises: Annotated[int, typer.Option(metavar="N", help="Noises per prompt when cells are measured.")] = 2,
    count: Annotated[
        int | None, typer.Option(metavar="N", help="Prompts that cells are measured on; all held-out ones by default.")
    ] = None,
    best: Annotated[str | None, typer.Option(metavar="FIGURE", help="What the best cell is chosen by.")] = None,
    subject_to: Annotated[
        list[str] | None,
        typer.Option("--subject-to", metavar="FIGURE<=NUMBER", help="A constraint on the best cell. Repeatable."),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Cells, results and page; finished cells are not trained again.")
    ] = Path("ablation"),
    quiet: options.Quiet = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Train a cell for every combination of settings, measure all alike, and show what the settings do.

    An ablation that was stopped resumes with the same command. Several processes share it under `accelerate launch`.

    For instance: dipp ablate --vary reward_scale=20,80 --steps 20
    """
    from dipp_toolkit.training.setup.name_checks import check_parts, check_rewards
    from dipp_toolkit.utils.assignments import parse_names

    from ..actions.settings import gather

    of_metrics = [assignment for assignment in assignments or [] if assignment.startswith("metric.")]
    settings = [assignment for assignment in assignments or [] if assignment not in of_metrics]
    base = gather(flags, settings, config, None, {"generator": GENERATOR})
    check_rewards(parse_names(measured_rewards))
    check_parts("metric", parse_names(metrics))
    from ..actions.ablate import (  # imports torch, which a misspelt name does not wait for
        AblateRequest,
        describe,
        measure,
    )
    from ..terminal.output import print_json, quiet_stdout

    request = AblateRequest(
        vary=vary or [],
        cells=cells,
        seeds=seeds,
        base=base,
        rewards=measured_rewards,
        metrics=metrics,
        metric_options=of_metrics,
        noises=noises,
        count=count,
        best=best,
        subject_to=subject_to or [],
        out=out,
        quiet=quiet,
    )
    if dry_run:
        from dipp_toolkit.experiments.ablation.settings import preflight_ablation

        from ..terminal.tables import print_preflight

        print_preflight(preflight_ablation(request.settings()), as_json)
        return
    with quiet_stdout():
        result = measure(request)
    if result is None:
        return
    if as_json:
        print_json(describe(result, as_text=False))
    else:
        describe(result)
