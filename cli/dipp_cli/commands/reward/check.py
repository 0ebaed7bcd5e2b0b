"""`dipp reward check`: what is wrong with a reward."""

from __future__ import annotations

from typing import Annotated

import typer

from ... import options

NAME = "NAME|FILE.py:FUNCTION|URL"


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("check")(check)


def check(
    name: Annotated[str, typer.Argument(metavar=NAME, help="The reward, as --reward takes it.")],
    *,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Its options, as in reward.hps.version=v2.1. Repeatable."),
    ] = None,
    device: options.Device = None,
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Side of the test images.")] = 64,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed of the test images.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Report what is wrong with a reward before a run finds out. Exits with 1 where a check fails.

    It looks at shapes, unusual images and prompts, chance, neighbours in
    a batch, gradients against finite differences, side effects, devices,
    speed and memory. A reward without a gradient passes, and is reported as such.

    For instance: dipp reward check emoji-preference
    """
    from ...actions.reward.check import check_by_name, describe
    from ...terminal.output import print_json, quiet_stdout

    with quiet_stdout():
        result = check_by_name(name, assignments or [], device or "auto", size, seed)
    if as_json:
        print_json(result)
    else:
        describe(result)
    if not result["passed"]:
        raise typer.Exit(1)
