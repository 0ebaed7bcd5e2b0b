"""`dipp distill`: make a one-step generator from a multi-step reference."""

from __future__ import annotations

from typing import Any

import typer

from .. import options

REFERENCE = "emoji-reference"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("distill", cls=options.ResumableCommand, rich_help_panel="Train")(distill)


def distill(
    *,
    reference: options.Reference = None,
    generator: options.Generator = None,
    prompts: options.Prompts = None,
    guidance: options.Guidance = None,
    term: options.Term = None,
    judge: options.Judge = None,
    steps: options.Steps = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = None,
    out: options.Out = None,
    resume: options.Resume = None,
    recipe: options.Recipe = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    track: options.Track = None,
    device: options.Device = None,
    precision: options.Precision = None,
    mode: options.Mode = None,
    recompute_generator: options.RecomputeGenerator = None,
    gradient_checkpointing: options.GradientCheckpointing = None,
    channels_last: options.ChannelsLast = None,
    compile: options.Compile = None,
    optimizer: options.Optimizer = None,
    push_to_hub: options.PushToHub = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Distil a multi-step reference into a one-step generator, without rewards.

    The generator starts as a copy of the reference's network unless --generator names another. Without arguments: the
    built-in emoji reference.
    """
    from dipp_toolkit.errors import RequestError
    from dipp_toolkit.planning.recipes.layer import recipe_settings

    from ..actions.settings import gather

    flags = {
        "recipe": recipe,
        "generator": generator,
        "reference": reference,
        "prompts": prompts,
        "guidance": guidance,
        "term": term,
        "judge": judge,
        "steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "out": out,
        "trackers": track,
        "device": device,
        "precision": precision,
        "mode": mode,
        "push_to_hub": push_to_hub,
        "recompute_generator": recompute_generator,
        "gradient_checkpointing": gradient_checkpointing,
        "channels_last": channels_last,
        "compile": compile,
        "optimizer": optimizer,
    }
    # An empty set of rewards is said aloud, so that none is recommended.
    fallback: dict[str, Any] = {"generator": None, "reference": REFERENCE, "rewards": {}}
    settings = gather(flags, assignments or [], config, resume, fallback)
    named = "rewards" in settings.model_fields_set
    rewards = settings.rewards if named else recipe_settings(settings).get("rewards", {})
    if rewards:
        raise RequestError(f"dipp distill takes no rewards, and was given {', '.join(rewards)}. Use dipp train.")
    from ..actions.train import run  # imports torch, which a misspelt name does not wait for

    run(settings, as_json, quiet, dry_run)
