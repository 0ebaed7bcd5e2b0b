"""`dipp generate`: images from prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..terminal.output import print_line


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("generate", rich_help_panel="Use")(generate)


def generate(
    *,
    generator: options.Generator = None,
    reference: options.Reference = None,
    prompt: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="What to show. Repeatable.")] = None,
    prompts: options.Prompts = None,
    count: Annotated[int | None, typer.Option(metavar="N", help="Take only the first N prompts of --prompts.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed of the noise; noise i belongs to prompt i.")] = 0,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Sampling steps of a reference; a generator takes its own.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(metavar="SCALE", help="Classifier-free guidance of a reference; a generator has none."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Size of the pictures in pixels, as in 768x512; the generator's or reference's own by default.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER|PNG",
            help="A folder for numbered pictures and a grid, or one .png for the grid alone (4,200 pixels at most).",
        ),
    ] = Path("images"),
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="How the generator is loaded: weights=OWNER/REPO:FILE, lora=OWNER/REPO:FILE=0.125, readout=399/999. "
            "Repeatable.",
        ),
    ] = None,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Make images with a generator of one step or a few, or with a multi-step reference.

    --generator makes them, in its own steps, and --reference then says which diffusion encodes the prompts and decodes
    the latents. --reference alone samples it in many steps. Without either: the built-in emoji generator.

    For instance: dipp generate --generator emoji-onestep --prompt "fox on blue" --out fox
    """
    from dipp_toolkit.models.generator_options import parsed_options, pipeline_of_reference
    from dipp_toolkit.training.setup.name_checks import check_pipeline, check_prompts
    from dipp_toolkit.utils.assignments import parse_assignments
    from dipp_toolkit.utils.paths import user_path

    load_options = parsed_options(parse_assignments(assignments or []), "A generator")
    for kind, name in (("generator", generator), ("reference", reference)):
        if name is not None and (kind == "reference" or pipeline_of_reference(name, load_options) is None):
            check_pipeline(name, kind)
    if prompts is not None:
        check_prompts(prompts)
    from ..actions.generate import (  # imports torch, which a misspelt name does not wait for
        GenerateRequest,
        image_batches,
    )
    from ..actions.pictures import check_out, write_pictures
    from ..terminal.output import print_json, quiet_stdout

    out = user_path(out)
    request = GenerateRequest(
        generator=generator,
        reference=reference,
        prompt=prompt or [],
        prompts=prompts,
        count=count,
        seed=seed,
        steps=steps,
        guidance=guidance,
        size=size,
        device=device or "auto",
        options=load_options,
    )
    request.check()
    check_out(out)
    with quiet_stdout():
        texts, batches, settings = image_batches(request)
        written = write_pictures(batches, texts, out)
    if as_json:
        *files, grid = (str(path) for path in written)
        print_json({**settings, "prompts": texts, "images": files, "grid": grid})
        return
    print_line(
        f"{len(texts)} image{'s' * (len(texts) != 1)} in {out}"
        + (f", all of them in {written[-1]}" if len(written) > 1 else "")
    )
