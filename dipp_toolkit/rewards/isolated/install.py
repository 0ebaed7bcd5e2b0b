"""Making an environment: `python -m venv`, pip, a file of shared paths, a check, and last the marker that it is whole.

What is cut off has no marker, is never used, and is made from the beginning the next time.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ...errors import RequestError, RunError
from ...utils.assignments import ENVIRONMENT
from ...utils.imports import import_attribute
from ...utils.messages import unknown_name
from ...utils.paths import user_path
from ..remote.wire import one_line
from .environments import (
    ISOLATED,
    MARKER,
    PYTHON,
    Environment,
    Installed,
    default_folder,
    find_registered,
    packages_of,
    python_of,
    read_marker,
    registered,
    share,
    write_whole,
)

OURS = ("torch", "torchvision", "triton")
"""Packages that an environment shares and never has of its own: gigabytes, and tensors pass between the two."""
NEWS = ("Downloading ", "Building wheel", "Installing collected")
NO_NEWS = ("Looking in ", "WARNING: ")
LAST = 6
"""Lines of a failing program's output that are quoted."""


@dataclass(frozen=True)
class Plan:
    """What is to be made.

    Attributes:
        environment: its name, packages and the rest.
        file: the user's file of requirements; None for a registered environment.
    """

    environment: Environment
    file: Path | None = None

    @property
    def folder(self) -> Path:
        """Where it is made."""
        return default_folder() / self.environment.name


def plan(name_or_file: str, no_deps: bool = False) -> Plan:
    """What a name on the command line means.

    Args:
        name_or_file: a registered environment, a reward that has one, or a file of requirements.
        no_deps: leave out what a file's requirements require.

    Raises:
        RequestError: it is none of these, or the file cannot be used.
    """
    environment = find_registered(name_or_file)
    if environment is not None:
        return Plan(environment)
    path = user_path(name_or_file)
    if not path.is_file():
        if path.suffix == ".txt" or "/" in name_or_file:
            raise RequestError(f"There is no requirements file {path}.")
        names = {*registered(), *(environment.reward for environment in registered().values() if environment.reward)}
        raise RequestError(unknown_name("environment", name_or_file, names) + " Or name a requirements file.")
    name = path.stem
    if not ENVIRONMENT.fullmatch(name):
        raise RequestError(f"'{name}' cannot be the name of an environment; expected letters, digits, dots and dashes.")
    if name == ISOLATED or find_registered(name) is not None:
        raise RequestError(
            f"The file {path} would make an environment named '{name}', which is already a name. Rename the file."
        )
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"The requirements file {path} cannot be read: {one_line(error)}.") from error
    requirements = tuple(line for line in lines if line and not line.startswith("#"))
    return Plan(Environment(name, requirements, dependencies=not no_deps), path)


def install(
    name_or_file: str, force: bool = False, no_deps: bool = False, say: Callable[[str], None] = print
) -> Installed:
    """Make an environment, unless it is there and as it should be.

    Args:
        name_or_file: as for `plan`.
        force: make it anew in any case.
        no_deps: as for `plan`.
        say: called with what happens, a line at a time.

    Raises:
        RequestError: there is nothing of this name to make.
        RunError: a package cannot be installed, or does not work.
    """
    planned = plan(name_or_file, no_deps)
    environment, folder = planned.environment, planned.folder
    marker = {
        "name": environment.name,
        "requirements": list(environment.requirements),
        "dependencies": environment.dependencies,
        "python": PYTHON,
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.parent / f".{folder.name}.lock"):
            if not force and read_marker(folder) == marker:
                share(folder)
                say(f"The environment '{environment.name}' exists already: {folder}")
            else:
                try:
                    _make(planned, say)
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
                write_whole(folder / MARKER, json.dumps(marker, indent=2) + "\n")
    except OSError as error:
        raise RunError(f"Cannot make the environment in {folder}: {error.strerror or error}.") from error
    return Installed(environment.name, folder)


def _make(planned: Plan, say: Callable[[str], None]) -> None:
    environment, folder = planned.environment, planned.folder
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    say(f"Making the environment '{environment.name}' in {folder}")
    run_program([sys.executable, "-m", "venv", str(folder)], "make a virtual environment", say)
    python = str(python_of(folder))
    packages = ["-r", str(planned.file)] if planned.file is not None else list(environment.requirements)
    if environment.requirements:
        say(f"Installing {len(environment.requirements)} packages")
        pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
        if environment.dependencies:  # what is shared counts as installed
            share(folder)
            with _constraints() as file:
                run_program([*pip, "--constraint", file, *packages], "install the packages", say)
        else:  # what is shared must not count: a private copy stays when ours is upgraded
            run_program([*pip, "--no-deps", *packages], "install the packages", say)
    if environment.prepare:
        prepare = import_attribute(environment.prepare, f"the environment '{environment.name}'")
        prepare(packages_of(folder))
    share(folder)
    say("Checking that it works")
    modules = ["torch", "dipp_toolkit.rewards.isolated.worker", *([environment.imports] if environment.imports else [])]
    run_program([python, "-P", "-c", f"import {', '.join(modules)}"], f"import {modules[-1]}", say)


@contextmanager
def _constraints() -> Iterator[str]:
    """A file that keeps pip from putting another torch beside the shared one."""
    lines = []
    for package in OURS:
        try:
            lines.append(f"{package}=={version(package)}\n")
        except PackageNotFoundError:
            continue
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(lines)
        file.flush()
        yield file.name


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock: two who make the same environment do it one after the other."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_program(command: Sequence[str], what: str, say: Callable[[str], None]) -> None:
    """Run a program, and pass on the lines of its output that are news.

    Args:
        command: program and arguments.
        what: it is for, for the message: "install the packages".
        say: called with a line at a time.

    Raises:
        RunError: it failed, with its last words.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    last: deque[str] = deque(maxlen=LAST)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            text = one_line(line.decode("utf-8", "replace"), 300)
            if text and not text.startswith(NO_NEWS):
                last.append(text)
            if text.startswith(NEWS):
                say(f"  {one_line(text, 100)}")
    if process.returncode:
        raise RunError(f"Could not {what} (exit code {process.returncode}): {' | '.join(last)}")
