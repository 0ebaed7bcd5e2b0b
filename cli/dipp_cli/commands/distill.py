"""`dipp distill`: make a one-step generator from a multi-step reference."""

from __future__ import annotations

from typing import Any

import typer

from .. import options
from ..setting_flags import FLAGS, ResumableCommand, add_command

REFERENCE = "emoji-reference"


def register(app: typer.Typer) -> None:
    """Add the command."""
    settings = [name for name, flag in FLAGS.items() if not flag.of_rewards]
    add_command(app, distill, settings, panel="Train", cls=ResumableCommand)


def distill(
    flags: dict[str, Any],
    *,
    resume: options.Resume = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Distil a multi-step reference into a one-step generator, without rewards.

    The generator starts as a copy of the reference's network unless --generator names another. Without arguments: the
    built-in emoji reference.

    For instance: dipp distill --reference emoji-reference --steps 100
    """
    from dipp_toolkit.errors import RequestError
    from dipp_toolkit.planning.recipes.recipe import recipe_settings

    from ..actions.settings import gather

    # An empty set of rewards is said aloud, so that none is recommended.
    fallback: dict[str, Any] = {"generator": None, "reference": REFERENCE, "rewards": {}}
    settings = gather(flags, assignments or [], config, resume, fallback)
    named = "rewards" in settings.model_fields_set
    rewards = settings.rewards if named else recipe_settings(settings).get("rewards", {})
    if rewards:
        raise RequestError(f"dipp distill takes no rewards, and was given {', '.join(rewards)}. Use dipp train.")
    from ..actions.train import run  # imports torch, which a misspelt name does not wait for

    run(settings, as_json, quiet, dry_run)
