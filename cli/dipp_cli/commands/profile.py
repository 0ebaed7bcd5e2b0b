"""`dipp profile`: where the time and the memory of a run's steps go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options
from ..setting_flags import FLAGS, add_command

GENERATOR = "emoji-onestep"
STEPS = 10
LEFT_OUT = ("steps", "out", "judge", "trackers", "push_to_hub")
"""Settings that change no step; `--steps` says here how many are measured."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    settings = tuple(name for name in FLAGS if name not in LEFT_OUT)
    add_command(app, profile, settings, panel="Train", names={"batch_size": ["--batch"]})


def profile(
    flags: dict[str, Any],
    *,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps that are measured, after a few that warm up.")] = STEPS,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a trace of one step, .json or .json.gz, that ui.perfetto.dev opens."),
    ] = None,
    assignments: options.Assignments = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Show where the time and the memory of a run's steps go, and what to change.

    Takes the settings of a training, runs a few of its steps, and writes nothing but the trace: seconds, launches,
    share of the device's peak, waits and memory by part of a step. Without arguments: the built-in emoji generator.

    For instance: dipp profile --generator emoji-onestep
    """
    import os

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read as torch is loaded: its profiler's own log
    from ..actions.settings import gather

    named = config is not None or any(flags[name] for name in ("generator", "reference", "recipe"))
    settings = gather(flags, assignments or [], config, None, None if named else {"generator": GENERATOR})
    from ..actions.profile import run  # imports torch, which a misspelt name does not wait for

    run(settings, steps, trace, as_json)
