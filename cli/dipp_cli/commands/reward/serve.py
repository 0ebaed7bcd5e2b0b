"""`dipp reward serve`: rewards for other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ... import options


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("serve")(serve)


def serve(
    rewards: Annotated[str, typer.Argument(metavar="NAME,...", help="Rewards: hps,imagereward@isolated,./a.py:blue.")],
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; one that others can reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 for any free one.")] = 8700,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Callers need the token in this file.")
    ] = None,
    token_env: Annotated[
        str, typer.Option(metavar="NAME", help="Callers need the token in this environment variable, if it is set.")
    ] = "DIPP_REWARD_TOKEN",
    max_megabytes: Annotated[float, typer.Option(metavar="MB", help="Largest request that is accepted.")] = 256.0,
    max_images: Annotated[int, typer.Option(metavar="N", help="Largest number of images in a request.")] = 256,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Time limit of a call.")] = 300.0,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Their options, as in reward.hps.version=v2.1. Repeatable."),
    ] = None,
    device: options.Device = None,
) -> None:
    """Serve rewards over HTTP, for runs on other machines or in other environments.

    Use one with --reward http://HOST:PORT/NAME. Ctrl-C ends the server.

    For instance: dipp reward serve emoji-preference
    """
    from dipp_toolkit.training.setup.name_checks import check_rewards
    from dipp_toolkit.utils.assignments import parse_names

    check_rewards(parse_names(rewards))
    from ...actions.reward.serve import serve_rewards  # imports torch, which a misspelt name does not wait for

    limits = {"timeout": timeout, "max_megabytes": max_megabytes, "max_images": max_images}
    serve_rewards(rewards, host, port, token_env, token_file, limits, assignments or [], device or "auto")
