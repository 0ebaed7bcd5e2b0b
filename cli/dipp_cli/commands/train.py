"""`dipp train`: align a one-step generator."""

from __future__ import annotations

from typing import Any

import typer

from .. import options
from ..setting_flags import FLAGS, ResumableCommand, add_command

GENERATOR = "emoji-onestep"


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, train, tuple(FLAGS), panel="Train", cls=ResumableCommand)


def train(
    flags: dict[str, Any],
    *,
    resume: options.Resume = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Align a one-step generator with rewards.

    Without arguments: the built-in emoji generator, with its recommended rewards and settings.

    For instance: dipp train --generator emoji-onestep --reward emoji-preference=1,emoji-clip=0.02 --steps 40
    """
    from ..actions.settings import gather

    settings = gather(flags, assignments or [], config, resume, {"generator": GENERATOR})
    from ..actions.train import run  # imports torch, which a misspelt name does not wait for

    run(settings, as_json, quiet, dry_run)
