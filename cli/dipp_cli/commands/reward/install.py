"""`dipp reward install`: packages that cannot live beside ours, in an environment of their own."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("install")(install)


def install(
    environment: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="image-reward, hpsv2, ..., or a file of requirements: mine.txt.")
    ],
    force: Annotated[bool, typer.Option("--force", "--upgrade", help="Reinstall it, even if it is complete.")] = False,
    no_deps: Annotated[
        bool, typer.Option("--no-deps", help="Do not install dependencies: the file names every package.")
    ] = False,
) -> None:
    """Install a reward's packages into a private environment that shares torch with this one.

    Then use the reward with --reward imagereward@isolated, or a file of yours with --reward ./mine.py:blue@mine.

    For instance: dipp reward install hpsv3@isolated
    """
    from dipp_toolkit.rewards.isolated.environments import ISOLATED, find_registered
    from dipp_toolkit.rewards.isolated.install import install as install_packages

    from ...terminal.output import print_line

    installed = install_packages(environment, force, no_deps, lambda line: print_line(line, file=sys.stderr))
    registered = find_registered(installed.name)
    reward = f"{registered.reward}@{ISOLATED}" if registered is not None else f"FILE.py:NAME@{installed.name}"
    print_line(f"Ready. Use it with: --reward {reward}")
