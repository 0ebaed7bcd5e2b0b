"""`dipp align`: votes, a reward fitted to them, a training by it, and again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options
from ..setting_flags import add_command

GENERATOR = "emoji-onestep"
SETTINGS = (
    "generator", "reference", "rewards", "prompts", "pull", "reward_scale", "steps", "batch_size", "device",
    "precision", "mode",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, align, SETTINGS, panel="Train")


def align(
    flags: dict[str, Any],
    *,
    rounds: Annotated[int, typer.Option(metavar="N", help="Rounds at most; voters who cannot tell end them.")] = 3,
    votes: Annotated[int, typer.Option(metavar="N", help="Votes of each voter in a round.")] = 300,
    compared: Annotated[
        int, typer.Option(metavar="N", help="Votes of each voter on new against old at a round's end.")
    ] = 100,
    voters: Annotated[int, typer.Option(metavar="N", help="Voters who have to reach these numbers.")] = 1,
    prompt_count: Annotated[int, typer.Option(metavar="N", help="Prompts that a round votes on.")] = 75,
    per_prompt: Annotated[int, typer.Option(metavar="K", help="Images of each maker for each prompt.")] = 4,
    beside: Annotated[
        str | None,
        typer.Option(metavar="[LABEL=]NAME,...", help="Generators and references that are voted on beside."),
    ] = None,
    repeats: options.Repeats = 0.05,
    picking: options.Picking = "adaptive",
    backbone: Annotated[
        str, typer.Option(metavar="NAME|FOLDER", help="Image-text network of the fitted reward; see dipp reward fit.")
    ] = "clip",
    simulate: options.Simulate = None,
    noise: options.Noise = 0.1,
    config: options.Config = None,
    assignments: options.Assignments = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Random seed of prompts, noises, pairs, fits and trainings.")
    ] = 0,
    port: options.VotePort = 8701,
    browser: options.Browser = True,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="All rounds; the same command goes on where it was stopped.")
    ] = Path("align"),
    quiet: options.Quiet = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Align a generator by people's own votes: vote, fit a reward, train by it, vote on new against old, and again.

    It ends when voters cannot tell new from old. An alignment that was stopped goes on with the same command.

    For instance: dipp align --generator emoji-onestep --backbone emoji-clip --simulate colourfulness --rounds 1
    """
    from dipp_toolkit.training.setup.name_checks import check_pipeline, check_rewards
    from dipp_toolkit.utils.assignments import parse_names

    from ..actions.settings import gather

    base = gather({**flags, "seed": seed}, assignments or [], config, None, {"generator": GENERATOR})
    check_rewards((simulate,) if simulate else ())
    for name in parse_names(beside or ""):
        check_pipeline(name.rpartition("=")[2].strip(), "generator", "reference")
    from ..actions.align import AlignRequest, run  # imports torch, which a misspelt name does not wait for

    request = AlignRequest(
        base=base,
        rounds=rounds,
        votes=votes,
        compared=compared,
        voters=voters,
        prompt_count=prompt_count,
        per_prompt=per_prompt,
        beside=beside,
        repeats=repeats,
        picking=picking,
        backbone=backbone,
        simulate=simulate,
        noise=noise,
        seed=seed,
        port=port,
        browser=browser,
        out=out,
        quiet=quiet,
    )
    raise typer.Exit(run(request, as_json, dry_run))
