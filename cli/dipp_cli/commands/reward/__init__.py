"""`dipp reward`: check rewards, install their packages apart from ours, and serve them to other machines."""

from __future__ import annotations

import importlib
import pkgutil

import typer


def register(app: typer.Typer) -> None:
    """Add the group with every module of this package."""
    group = typer.Typer(help="Check, fit, install and serve rewards.", no_args_is_help=True)
    group.callback()(lambda: None)
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        importlib.import_module(f"{__name__}.{module.name}").register(group)
    app.add_typer(group, name="reward", rich_help_panel="Check")
