"""`dipp export`: a run's generator for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export", rich_help_panel="Use")(export)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or that of a generator's pipeline.")],
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="lora|single-file|comfyui",
            help="A LoRA for load_lora_weights; a checkpoint of one file in the original layout; files and workflows "
            "for ComfyUI.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER|FILE", help="Where to; a new folder, or a new .safetensors file for single-file."),
    ] = None,
    dtype: Annotated[str, typer.Option(metavar="fp32|fp16|bf16", help="Precision of the weights.")] = "fp32",
    rank: Annotated[
        int | None,
        typer.Option(metavar="R", help="Of the LoRA of a generator that was trained in full; 64 by default."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER", help="What the generator was trained from; by default what the run's settings say."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="Read the files back with plain diffusers and compare an image of the same noise.",
        ),
    ] = True,
    as_json: options.Json = False,
) -> None:
    """Write a run's generator as other programs load it, and check it by a round trip.

    What plain diffusers loads needs no export: it is the run's folder final/.

    For instance: dipp export runs/emoji-onestep-1 --to comfyui
    """
    from ..actions.export import ExportRequest, write

    request = ExportRequest(run=run, to=to, out=out, dtype=dtype, rank=rank, base=base, check=check)
    request.refuse()
    raise typer.Exit(write(request, as_json))
