"""`dipp tune`: teach a few-step generator a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options
from ..setting_flags import SettingsCommand, add_command

GENERATOR = "emoji-onestep"
OUT = Path("tuned")
SETTINGS = (
    "generator", "reference", "prompts", "judge", "steps", "guidance", "batch_size", "seed", "out", "trackers",
    "device", "precision", "mode", "recompute_generator", "gradient_checkpointing", "channels_last", "optimizer",
)  # fmt: skip
"""Settings of the distillation that have a flag here; seed, device, precision and memory are the adapter's too."""
ADAPTER = "The adapter on the reference"


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, tune, SETTINGS, panel="Train", cls=SettingsCommand)


def tune(
    flags: dict[str, Any],
    pictures: Annotated[Path, typer.Argument(metavar="FOLDER", help="The pictures, 20 or more, with captions.")],
    *,
    captions: Annotated[
        str | None,
        typer.Option(metavar="FILE|SET", help="Captions, one a line; by default those beside the pictures."),
    ] = None,
    caption: Annotated[str | None, typer.Option(metavar="TEXT", help="One caption for all pictures.")] = None,
    way: Annotated[
        str,
        typer.Option(
            metavar="reference|difference",
            help="Distil towards the tuned reference, or keep the untuned one and take what it learned as a reward.",
        ),
    ] = "reference",
    strength: Annotated[
        float, typer.Option(metavar="FACTOR", help="Of that reward, with --way difference: 1 for what was learned.")
    ] = 1.0,
    naive: Annotated[
        bool,
        typer.Option("--naive", help="Tune the generator's own network by the denoising loss too, to stand beside."),
    ] = False,
    adapter_steps: Annotated[int, typer.Option(metavar="N", help="Updates.", rich_help_panel=ADAPTER)] = 500,
    adapter_batch: Annotated[int, typer.Option(metavar="N", help="Pictures an update.", rich_help_panel=ADAPTER)] = 8,
    adapter_rank: Annotated[int, typer.Option(metavar="N", help="Its rank.", rich_help_panel=ADAPTER)] = 16,
    adapter_learning_rate: Annotated[
        float, typer.Option(metavar="RATE", help="Adam's learning rate.", rich_help_panel=ADAPTER)
    ] = 1e-3,
    caption_dropout: Annotated[
        float, typer.Option(metavar="SHARE", help="Captions that are left empty, 0 to 1.", rich_help_panel=ADAPTER)
    ] = 0.1,
    adapter_save_every: Annotated[
        int, typer.Option(metavar="N", help="Updates between checkpoints.", rich_help_panel=ADAPTER)
    ] = 100,
    config: options.Config = None,
    assignments: options.Assignments = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Teach a few-step generator a folder of pictures and keep its steps.

    The multi-step reference learns the pictures by an adapter; then the generator is distilled towards it. Given
    again, the same command goes on where it was.

    For instance: dipp tune my-pictures --generator emoji-onestep
    """
    from ..actions.settings import gather

    values = {name: value for name, value in flags.items() if value is not None}
    values.setdefault("out", OUT)
    settings = gather(values, assignments or [], config, None, {"generator": GENERATOR})
    from ..actions.tune import TuneRequest, run  # imports torch, which a misspelt name does not wait for

    request = TuneRequest(
        pictures=pictures,
        captions=captions,
        caption=caption,
        way=way,
        strength=strength,
        naive=naive,
        adapter_steps=adapter_steps,
        adapter_batch=adapter_batch,
        adapter_rank=adapter_rank,
        adapter_learning_rate=adapter_learning_rate,
        caption_dropout=caption_dropout,
        adapter_save_every=adapter_save_every,
    )
    run(request, settings, as_json, quiet)
