"""`dipp prompts`: work with prompt sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..terminal.output import print_line


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Work with prompt sets.", no_args_is_help=True)
    group.callback()(lambda: None)
    group.command("encode")(encode)
    app.add_typer(group, name="prompts", rich_help_panel="Train")


def encode(
    *,
    reference: Annotated[
        str,
        typer.Option(
            metavar="NAME|FOLDER",
            help="Reference that encodes: a registered name, a folder or a hub id.",
        ),
    ],
    prompts: Annotated[str, typer.Option(metavar="SET|FILE", help="Prompt set, or a text file, one per line.")],
    cache: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Cache folder; by default the one that training reads.")
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="fp32, bf16 or fp16: precision of the text encoders' weights.")
    ] = "fp32",
    chunk: Annotated[int, typer.Option(metavar="N", help="Prompts per file.")] = 256,
    cut: Annotated[
        bool, typer.Option("--cut", help="Cut prompts that are too long; they are refused otherwise.")
    ] = False,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Encode prompts once, to a cache; training from it needs no text encoder.

    Encoding that was stopped resumes where it was. Only the text encoders are loaded.

    For instance: dipp prompts encode --reference emoji-reference --prompts emoji-heldout
    """
    from ..actions.prompts import encode_to_cache
    from ..terminal.output import print_json, quiet_stdout

    with quiet_stdout():
        result = encode_to_cache(reference, prompts, cache, precision, chunk, cut, device or "auto")
    if as_json:
        print_json(result)
        return
    print_line(
        f"{result['encoded']} of {result['prompts']} prompts encoded now, the others earlier; in {result['folder']}"
    )
