"""`dipp plugins`: what is installed, what is known of it, whether it works, and a project for one of your own."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup


class ListByDefault(TyperGroup):
    """A group whose command `list` is meant where no command is named, so that `dipp plugins rewards` is a listing."""

    fallback: ClassVar[str] = "list"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args[:1] and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named else [self.fallback, *args])


def register(app: typer.Typer) -> None:
    """Add the group with every module of this package."""
    group = typer.Typer(cls=ListByDefault)
    group.callback()(_plugins)
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        importlib.import_module(f"{__name__}.{module.name}").register(group)
    app.add_typer(group, name="plugins", rich_help_panel="Check")


def _plugins() -> None:
    """List, show and check what is installed, or write a plugin of your own.

    Without a command it lists: dipp plugins, or dipp plugins rewards emoji
    """
