"""`dipp plan`: what a run will need."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .. import options

GENERATOR = "pixart-onestep"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan", rich_help_panel="Train")(plan)


def plan(
    *,
    generator: options.Generator = None,
    reference: options.Reference = None,
    reward: options.Rewards = None,
    batch: Annotated[
        int | None, typer.Option("--batch", "--batch-size", metavar="N", help="Samples a generator update.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="24GB", help="Memory to fit; settings that do are recommended.")
    ] = None,
    mode: options.Mode = None,
    precision: options.Precision = None,
    processes: Annotated[
        int | None,
        typer.Option(metavar="N", help="GPUs that share a run, H100s in nodes of 8.", rich_help_panel="Several GPUs"),
    ] = None,
    sharding: Annotated[
        str | None,
        typer.Option(
            metavar="none|fsdp",
            help="Networks whole in each process, or cut into one part a process.",
            rich_help_panel="Several GPUs",
        ),
    ] = None,
    utilisation: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of the published peak that is reached; 0.4 if not said."),
    ] = None,
    assignments: options.Assignments = None,
    recipe: options.Recipe = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Say what a run will need, before anything is downloaded: parameters, memory, operations, seconds a step.

    The architectures are built without weights and a step is run on tensors without memory. Registered names, pipeline
    folders, run folders and a run's own --config are planned; nothing is fetched. Without arguments: PixArt-alpha with
    HPSv2 and ImageReward.
    """
    from dipp_toolkit.errors import RequestError

    from ..actions.plan import describe, plan_run, said_when_slow
    from ..terminal.output import print_json, quiet_stdout

    flags: dict[str, Any] = {
        "recipe": recipe,
        "generator": generator,
        "reference": reference,
        "rewards": reward,
        "batch_size": batch,
        "mode": mode,
        "precision": precision,
    }
    if not any((generator, reference, reward, recipe, config)):
        flags |= {"generator": GENERATOR, "rewards": "hps,imagereward"}
    elif not any((generator, reference, recipe, config)):
        raise RequestError("Name what to plan with --generator, or with --reference for a distillation.")
    with quiet_stdout(), said_when_slow():
        result = plan_run(flags, assignments or [], memory, processes, sharding, utilisation, config)
    if as_json:
        print_json(result)
    else:
        describe(result)
    if result.get("fits") is False:
        raise typer.Exit(1)
