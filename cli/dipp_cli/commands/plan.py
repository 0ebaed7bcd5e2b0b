"""`dipp plan`: what a run will need."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .. import options
from ..setting_flags import add_command

GENERATOR = "pixart-onestep"
SETTINGS = (
    "generator", "reference", "rewards", "recipe", "batch_size", "mode", "precision", "generator_steps", "resolution",
    "aspects",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, plan, SETTINGS, panel="Train", names={"batch_size": ["--batch"]})


def plan(
    flags: dict[str, Any],
    *,
    memory: Annotated[
        str | None, typer.Option(metavar="24GB", help="Memory to fit; settings that do are recommended.")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(metavar="N", help="GPUs that share a run, H100s in nodes of 8.", rich_help_panel="Several GPUs"),
    ] = None,
    sharding: Annotated[
        str | None,
        typer.Option(
            metavar="none|fsdp",
            help="Whole networks in each process, or one part per process.",
            rich_help_panel="Several GPUs",
        ),
    ] = None,
    utilisation: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of the published peak that is reached; 0.4 by default."),
    ] = None,
    assignments: options.Assignments = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Show what a run will need, before anything is downloaded: parameters, memory, operations, seconds a step.

    The architectures are built without weights and a step is run on tensors without memory. Registered names, pipeline
    folders, run folders and a run's own --config are planned; nothing is fetched. Without arguments: PixArt-alpha with
    HPSv2 and ImageReward.

    For instance: dipp plan --generator emoji-onestep --reward emoji-preference --memory 24GB
    """
    from dipp_toolkit.errors import RequestError

    from ..actions.plan import announced_when_slow, describe, plan_run
    from ..terminal.output import print_json, quiet_stdout

    named = config is not None or any(flags[name] for name in ("generator", "reference", "recipe"))
    if not named and not flags["rewards"]:
        flags = {**flags, "generator": GENERATOR, "rewards": "hps,imagereward"}
    elif not named:
        raise RequestError("Name what to plan with --generator, or with --reference for a distillation.")
    with quiet_stdout(), announced_when_slow():
        result = plan_run(flags, assignments or [], memory, processes, sharding, utilisation, config)
    if as_json:
        print_json(result)
    else:
        describe(result)
    if result.get("fits") is False:
        raise typer.Exit(1)
