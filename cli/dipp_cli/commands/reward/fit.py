"""`dipp reward fit`: a reward from votes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ... import options


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("fit")(fit)


def fit(
    pairs: Annotated[str, typer.Argument(metavar="PAIRS", help="Votes: a folder of dipp vote, or preference data.")],
    *,
    backbone: Annotated[
        str,
        typer.Option(
            metavar="clip|siglip|FOLDER",
            help="What sees and reads: a published network, the folder of a CLIP or SigLIP, or a reward's: emoji-clip.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The reward's folder, which --reward takes.")] = Path(
        "fitted-reward"
    ),
    ensemble: Annotated[int, typer.Option(metavar="K", help="Members; two or more say how much they doubt.")] = 1,
    lora_rank: Annotated[
        int, typer.Option("--lora-rank", metavar="N", help="Adapt the backbone; 0 leaves it frozen.")
    ] = 0,
    held_out: Annotated[
        float, typer.Option("--held-out", metavar="SHARE", help="Share of prompts to measure on; 0 for none.")
    ] = 0.2,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Updates; 200, or 3 epochs if that is more, by default.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(metavar="N", help="Times through the votes, in the place of --steps.")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", metavar="RATE", help="Of the head, 0.1; with --lora-rank of both, 1e-4."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", help="Votes an update.")] = 32,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the split and of the fit.")] = 0,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Fit a reward to votes by TRL's RewardTrainer, and measure it on prompts held out.

    The folder is a reward like any other: dipp train --reward FOLDER. Needs pip install 'dipp-toolkit[fit]'.

    For instance: dipp reward fit votes --backbone emoji-clip --out my-reward
    """
    from ...actions.reward.fit import describe, fit_by_name
    from ...terminal.output import print_json, quiet_stdout

    with quiet_stdout():
        result = fit_by_name(
            pairs,
            backbone,
            out,
            device or "auto",
            ensemble=ensemble,
            held_out=held_out,
            lora_rank=lora_rank,
            steps=steps,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
        )
    if as_json:
        print_json(result)
    else:
        describe(result)
