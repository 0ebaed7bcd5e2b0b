"""Writes `docs/reference/commands.md` from every command's `--help`: python tools/build_commands.py"""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dipp_cli.build import build_command

TARGET = Path(__file__).parents[1] / "docs" / "reference" / "commands.md"
HEAD = """# Commands

In the code: a file each in [cli/dipp_cli/commands/](../../cli/dipp_cli/commands), the flags that are settings in
[setting_flags.py](../../cli/dipp_cli/setting_flags.py).

<!-- Written by tools/build_commands.py from the commands; change it there. -->

What `dipp COMMAND --help` prints, of every command. Each takes `--debug`, anywhere on the line, which shows the
traceback of an error, and `--help`. Exit codes: 0 done, 1 the check or the run failed and says why, 2 the request was
wrong, 130 interrupted (and saved). Flags of settings say more in [Settings](settings.md).

"""
EVERYWHERE = {"--debug", "--help"}


def commands(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """Every command that does something, with its context, groups opened."""
    for name in command.list_commands(context):
        below = command.commands[name]
        inner = type(context)(below, info_name=name, parent=context)
        if hasattr(below, "commands"):
            yield from commands(below, inner)
        else:
            yield below, inner


def render() -> str:
    """The page."""
    program = build_command()
    context = program.context_class(program, info_name="dipp")
    found = list(commands(program, context))
    rows = [f"| [`{inner.command_path}`](#{anchor(inner.command_path)}) | {first(below)} |" for below, inner in found]
    overview = "| command | what it does |\n|---|---|\n" + "\n".join(rows) + "\n"
    return HEAD + overview + "".join(section(below, inner) for below, inner in found)


def anchor(path: str) -> str:
    """The anchor of a command's section."""
    return path.replace(" ", "-")


def first(command: Any) -> str:
    """The first paragraph of its help."""
    return cell(inspect.cleandoc(command.help or "").partition("\n\n")[0])


def section(command: Any, context: Any) -> str:
    """What the help of one command says."""
    usage = command.get_usage(context).removeprefix("Usage: ")
    told = "\n\n".join(cell(part) for part in inspect.cleandoc(command.help or "").split("\n\n"))
    records = [
        parameter.get_help_record(context)
        for parameter in command.get_params(context)
        if not EVERYWHERE & set(parameter.opts)
    ]
    rows = [f"| <code>{code(flag)}</code> | {cell(text)} |" for flag, text in filter(None, records)]
    table = "\n| | |\n|---|---|\n" + "\n".join(rows) + "\n" if rows else ""
    return f"\n## {context.command_path}\n\n{told}\n\n    {' '.join(usage.split())}\n{table}"


def cell(text: str) -> str:
    """Help as a table of Markdown takes it; a star or an angle is itself."""
    return re.sub(r"([|<*])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Code in a table; a bar between backticks means one thing to GitHub and another to the site."""
    return html.escape(text.strip(), quote=False).replace("|", "&#124;").replace("*", "&#42;").replace("_", "&#95;")


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
