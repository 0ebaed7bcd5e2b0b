"""Puts the application together: every module of `dipp_cli.commands`, then the commands that plugins bring."""

from __future__ import annotations

import importlib
import pkgutil
from copy import copy
from typing import Annotated, Any

import typer
from typer.main import get_command, get_group

from dipp_toolkit import __version__
from dipp_toolkit.errors import Interrupted
from dipp_toolkit.registry import BrokenPlugin, Registry, get_registry
from dipp_toolkit.utils.exception_text import raised

from . import commands
from .setting_flags import SettingsCommand

FIRST = ("distill", "train")
"""Commands whose group the help begins with."""
HELP = "Align one-step text-to-image generators with human preferences by Diff-Instruct++."


def build_app() -> typer.Typer:
    """The application with all commands. Command modules import nothing heavy, so neither does this."""
    app = typer.Typer(name="dipp", help=HELP, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_program)
    names = sorted(module.name for module in pkgutil.iter_modules(commands.__path__))
    for name in sorted(names, key=lambda name: name not in FIRST):
        importlib.import_module(f"{commands.__name__}.{name}").register(app)
    add_plugin_commands(app, get_registry())
    return app


class Stopped(Exception):  # noqa: N818 -- not an error
    """Carries an `Interrupted` past click, which makes an exit code without words of every `KeyboardInterrupt`."""


def build_command() -> Any:
    """The application as one click command; every command's help tells of `--debug`, which `main` takes off.

    It raises `Stopped` from an `Interrupted`.
    """
    program: Any = get_command(build_app())
    invoke = program.invoke

    def invoked(context: Any) -> Any:
        try:
            return invoke(context)
        except Interrupted as stop:
            raise Stopped from stop

    program.invoke = invoked
    debug = copy(next(parameter for parameter in program.params if "--debug" in parameter.opts))
    debug.expose_value = False
    _add_option(program, debug)
    return program


def _add_option(group: Any, option: Any) -> None:
    for command in getattr(group, "commands", {}).values():
        if isinstance(command, SettingsCommand):
            command.add(option)
        elif not any(set(parameter.opts) & set(option.opts) for parameter in command.params):
            command.params.append(option)
        _add_option(command, option)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"dipp-toolkit {__version__}")
        raise typer.Exit


def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. May stand anywhere on the line.")
    ] = False,
) -> None:
    """Options of the program itself; both are dealt with before a command runs."""


def add_plugin_commands(app: typer.Typer, registry: Registry) -> None:
    """Let every plugin add its commands; one that fails, or takes a taken name, is noted as broken and adds none.

    Args:
        app: with the built-in commands, whose names cannot be taken.
        registry: the installed plugins.
    """
    hook = "dipp_register_commands"
    for implementation in getattr(registry.manager.hook, hook).get_hookimpls():
        others = [plugin for plugin in registry.manager.get_plugins() if plugin is not implementation.plugin]
        added = typer.Typer()
        try:
            registry.manager.subset_hook_caller(hook, others)(app=added)
            clash = sorted(get_group(added).commands.keys() & get_group(app).commands.keys())
            reason = f"the command '{clash[0]}' exists already" if clash else ""
        except Exception as error:  # noqa: BLE001 -- a broken plugin, whatever it raises, must hurt nobody else
            reason = f"adding its commands failed with {raised(error)}"
        broken = BrokenPlugin(implementation.plugin_name, reason)
        if not reason:
            app.registered_commands += added.registered_commands
            app.registered_groups += added.registered_groups
        elif broken not in registry.broken:
            registry.broken.append(broken)
