"""`dipp reward`: check rewards, install their packages apart from ours, and serve them to other machines."""

from __future__ import annotations

import importlib
import pkgutil

import typer

from .. import reward_commands


def register(app: typer.Typer) -> None:
    """Add the group with every module of `dipp_cli.reward_commands`."""
    group = typer.Typer(help="Check, install and serve rewards.", no_args_is_help=True)
    group.callback()(lambda: None)
    for module in sorted(pkgutil.iter_modules(reward_commands.__path__), key=lambda one: one.name):
        importlib.import_module(f"{reward_commands.__name__}.{module.name}").register(group)
    app.add_typer(group, name="reward", rich_help_panel="Check")
