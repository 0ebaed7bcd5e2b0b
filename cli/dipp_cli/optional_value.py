"""`--resume` and `--resume auto`: an option whose value may be left out."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

OPTION, VALUES, BARE = "--resume", ("auto", "always"), "always"


class ResumableCommand(TyperCommand):
    """A command whose `--resume` stands alone or is followed by `auto`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--resume` its value, then parse as usual."""
        spelled = []
        for index, word in enumerate(args):
            bare = word == OPTION and (args[index + 1 : index + 2] or [""])[0] not in VALUES
            spelled.append(f"{OPTION}={BARE}" if bare else word)
        return super().parse_args(ctx, spelled)
