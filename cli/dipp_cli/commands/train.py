"""`dipp train`: align a one-step generator."""

from __future__ import annotations

import typer

from .. import options

GENERATOR = "emoji-onestep"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", cls=options.ResumableCommand, rich_help_panel="Train")(train)


def train(
    *,
    generator: options.Generator = None,
    reference: options.Reference = None,
    reward: options.Rewards = None,
    prompts: options.Prompts = None,
    balance: options.Balance = None,
    floor: options.Floors = None,
    reward_scale: options.RewardScale = None,
    pull: options.Pull = None,
    kl_budget: options.KLBudget = None,
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
    reward_resolution: options.RewardResolution = None,
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
    """Align a one-step generator with rewards.

    Without arguments: the built-in emoji generator, with its recommended rewards and settings.
    """
    from dipp_toolkit.utils.assignments import parse_number

    from ..actions.settings import gather

    flags = {
        "recipe": recipe,
        "generator": generator,
        "reference": reference,
        "rewards": reward,
        "prompts": prompts,
        "balance": balance,
        "floors": floor,
        "reward_scale": parse_number(reward_scale) if reward_scale is not None else None,
        "pull": pull,
        "kl_budget": kl_budget,
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
        "reward_resolution": reward_resolution,
        "recompute_generator": recompute_generator,
        "gradient_checkpointing": gradient_checkpointing,
        "channels_last": channels_last,
        "compile": compile,
        "optimizer": optimizer,
    }
    settings = gather(flags, assignments or [], config, resume, {"generator": GENERATOR})
    from ..actions.train import run  # imports torch, which a misspelt name does not wait for

    run(settings, as_json, quiet, dry_run)
