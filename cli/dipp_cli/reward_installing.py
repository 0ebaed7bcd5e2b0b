"""What `dipp reward install` does: make the environment, and say how to use it."""

from __future__ import annotations

import sys

from dipp_toolkit.rewards.environment_install import install
from dipp_toolkit.rewards.environments import ISOLATED, find_registered

from .output import print_line


def install_environment(name_or_file: str, force: bool, no_deps: bool) -> None:
    """Make an environment; progress goes to stderr, what to do with it to stdout.

    Raises:
        DippError: as `install` does.
    """
    installed = install(name_or_file, force, no_deps, lambda line: print_line(line, file=sys.stderr))
    known = find_registered(installed.name)
    reward = f"{known.reward}@{ISOLATED}" if known is not None else f"FILE.py:NAME@{installed.name}"
    print_line(f"Ready. Use it with: --reward {reward}")
