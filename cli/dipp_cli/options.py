"""Options that several commands share beside the flags of settings, as annotated types.

An option left out is None: the toolkit has the defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Generator = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FOLDER",
        help="Generator: a registered name, a pipeline or run folder, a hub id, file.py:Name or NAME@folder.",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FOLDER", help="Frozen multi-step diffusion: a name, a pipeline folder, a hub id or file.py:Name."
    ),
]
Prompts = Annotated[
    str | None, typer.Option(metavar="SET|FILE", help="Prompt set, a file of prompts, or file.py:NAME.")
]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="[auto]",
        help="Resume the run in the --out folder; 'auto' starts a new one if there is nothing to resume.",
    ),
]
Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="YAML file of settings; flags and --set take precedence.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any setting by name: learning_rate=2e-5, reward.hps.version=v2.1. Repeatable.",
    ),
]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, to stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="A plain line now and then instead of a progress bar.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check everything that needs no weights and print what would be done; fetch and write nothing.",
    ),
]
Repeats = Annotated[float, typer.Option(metavar="SHARE", help="Share of the votes that ask about a pair again.")]
Picking = Annotated[str, typer.Option(metavar="adaptive|random", help="Show the pairs that teach most, or any.")]
Simulate = Annotated[str | None, typer.Option(metavar="REWARD", help="Let a reward give the votes in place of people.")]
Noise = Annotated[float, typer.Option(metavar="P", help="Probability that a simulated voter errs.")]
VotePort = Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port of the page; 0 for any free one.")]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Show the page in a browser here.")]
