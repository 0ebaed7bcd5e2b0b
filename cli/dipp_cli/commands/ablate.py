"""`dipp ablate`: what settings do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options

GENERATOR = "emoji-onestep"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ablate", rich_help_panel="Compare")(ablate)


def ablate(
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
    generator: options.Generator = None,
    reference: options.Reference = None,
    reward: options.Rewards = None,
    prompts: options.Prompts = None,
    judge: options.Judge = None,
    steps: options.Steps = None,
    batch_size: options.BatchSize = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    rewards: Annotated[
        str, typer.Option("--measure", metavar="NAME,...", help="Rewards to measure beside those trained on.")
    ] = "",
    metrics: Annotated[str, typer.Option(metavar="NAME,...", help="Metrics to measure, such as fid.")] = "",
    noises: Annotated[int, typer.Option(metavar="N", help="Noises of every prompt when cells are measured.")] = 2,
    count: Annotated[
        int | None, typer.Option(metavar="N", help="Prompts that cells are measured on; all held-out ones by default.")
    ] = None,
    best: Annotated[str | None, typer.Option(metavar="FIGURE", help="What the best cell is chosen by.")] = None,
    subject_to: Annotated[
        list[str] | None,
        typer.Option("--subject-to", metavar="FIGURE<=NUMBER", help="What the best cell must keep to. Repeatable."),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Cells, results and page; finished cells are not trained again.")
    ] = Path("ablation"),
    device: options.Device = None,
    quiet: options.Quiet = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Train a cell for every combination of settings, measure them alike, and show what the settings do.

    An ablation that was stopped goes on by the same command. Several processes share it under `accelerate launch`.
    """
    from dipp_toolkit.training.setup.name_checks import check_parts, check_rewards
    from dipp_toolkit.utils.assignments import parse_names

    from ..actions.settings import gather

    flags = {
        "generator": generator,
        "reference": reference,
        "rewards": reward,
        "prompts": prompts,
        "judge": judge,
        "steps": steps,
        "batch_size": batch_size,
        "device": device,
    }
    measured = [one for one in assignments or [] if one.startswith("metric.")]
    settings = [one for one in assignments or [] if one not in measured]
    base = gather(flags, settings, config, None, {"generator": GENERATOR})
    check_rewards(parse_names(rewards))
    check_parts("metric", parse_names(metrics))
    from ..actions.ablate import Request, describe, measure  # imports torch, which a misspelt name does not wait for
    from ..terminal.output import print_json, quiet_stdout

    request = Request(
        vary or [], cells, seeds, base, rewards, metrics, noises, count, best, subject_to or [], out, quiet, measured
    )
    if dry_run:
        from dipp_toolkit.experiments.ablation.preflight import preflight_ablation

        from ..terminal.dry_run import tell

        tell(preflight_ablation(request.settings()), as_json)
        return
    with quiet_stdout():
        result = measure(request)
    if result is None:
        return
    if as_json:
        print_json(describe(result, as_text=False))
    else:
        describe(result)
