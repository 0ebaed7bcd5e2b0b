"""`dipp reward install`: packages that cannot live beside ours, in an environment of their own."""

from __future__ import annotations

from typing import Annotated

import typer


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("install")(install)


def install(
    environment: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="image-reward, hpsv2, ..., or a file of requirements: mine.txt.")
    ],
    force: Annotated[
        bool, typer.Option("--force", "--upgrade", help="Make it anew, even if it is there and as it should be.")
    ] = False,
    no_deps: Annotated[
        bool, typer.Option("--no-deps", help="Leave out what the packages of a file require; the file names them all.")
    ] = False,
) -> None:
    """Install a reward's packages into a private environment that shares torch with this one.

    Then use the reward with --reward imagereward@isolated, or a file of yours with --reward ./mine.py:blue@mine.
    """
    from ..reward_installing import install_environment

    install_environment(environment, force, no_deps)
