"""Environments of rewards whose packages cannot live beside ours: a private virtual environment each.

It shares our torch. Below the cache, `environments/<name>`, is a virtual environment with the reward's own packages and
one `.pth` file that puts our site-packages, and the folders of the toolkit's and its plugins' sources, after them. So a
private package goes before ours of the same name, and what is not private, torch above all, is not there twice.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from ...errors import RequestError
from ...registry import get_registry
from ...utils.assignments import ENVIRONMENT
from ...utils.json_files import read_json
from ...utils.messages import nearest
from ...utils.packages import GROUP
from ...utils.paths import cache_place

ISOLATED = "isolated"
MARKER = "environment.json"
SHARING = "dipp-toolkit.pth"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Environment:
    """What a private environment is made of; a plugin registers it with `dipp_register_environments`.

    Attributes:
        name: for `dipp reward install`, the package's name as a rule.
        requirements: as pip takes them, every one that is needed: they are installed without their dependencies.
        reward: the reward that `--reward REWARD@isolated` means.
        entry: `"module:load"`, called with the options in the environment; returns an ordinary reward.
        imports: a module that can be imported there once all is well.
        prepare: `"module:function"`, called with the environment's site-packages after pip, here and not there.
        dependencies: whether pip installs what the requirements require as well.
        described: a class that says what `protocols.DescribedReward` asks for, where no registered reward does.
    """

    name: str
    requirements: tuple[str, ...]
    reward: str = ""
    entry: str = ""
    imports: str = ""
    prepare: str = ""
    dependencies: bool = False
    described: type | None = None


@dataclass(frozen=True)
class Installed:
    """An environment that is whole on disk.

    Attributes:
        name: of its folder.
        folder: holds `bin/python` and the marker.
    """

    name: str
    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return python_of(self.folder)


def default_folder() -> Path:
    """`$DIPP_CACHE/environments`, or `~/.cache/dipp/environments`."""
    return cache_place("environments")


def python_of(folder: Path) -> Path:
    """The interpreter of the virtual environment in this folder."""
    return _place(folder, "scripts") / "python"


def packages_of(folder: Path) -> Path:
    """The site-packages of the virtual environment in this folder."""
    return _place(folder, "purelib")


def _place(folder: Path, what: str) -> Path:
    return Path(sysconfig.get_path(what, "venv", vars={"base": str(folder), "platbase": str(folder)}))


def registered() -> dict[str, Environment]:
    """The environments that plugins register, by name."""
    entries = get_registry().entries["environment"]
    return {name: cast(Environment, entry.build()) for name, entry in entries.items()}


def find_registered(name: str) -> Environment | None:
    """The registered environment of this name, or of the reward of this name."""
    environments = registered()
    by_reward = {environment.reward: environment for environment in reversed(environments.values())}
    return environments.get(name) or by_reward.get(name)


def read_marker(folder: Path) -> dict[str, Any] | None:
    """What the marker of a whole environment says; None where there is none."""
    try:
        return read_json(folder / MARKER)
    except RequestError:
        return None


def find_installed(name: str) -> Installed:
    """The environment of this name.

    Raises:
        RequestError: it is not installed, or of another version of Python than torch is here.
    """
    folder = default_folder() / name
    marker = read_marker(folder) if ENVIRONMENT.fullmatch(name) else None
    if marker is None:
        if find_registered(name) is not None:
            raise RequestError(f"The environment '{name}' is not installed. Run: dipp reward install {name}")
        names = {*registered(), *(path.name for path in default_folder().glob("*") if read_marker(path) is not None)}
        guess = nearest(name, names)
        hint = f" Did you mean '{guess}'?" if guess else f" Known: {', '.join(sorted(names)) or 'none'}."
        raise RequestError(
            f"There is no environment named '{name}'.{hint} Make one from a requirements file: "
            f"dipp reward install {name}.txt"
        )
    if marker.get("python") != PYTHON:
        raise RequestError(
            f"The environment '{name}' was made with Python {marker.get('python')}, and torch is shared with it from "
            f"Python {PYTHON}. Make it again: dipp reward install {name} --force"
        )
    return Installed(name, folder)


def shared_paths() -> list[str]:
    """The folders that an environment shares with ours: our site-packages, then sources outside of them."""
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    modules = ["dipp_toolkit", *(point.module for point in entry_points(group=GROUP))]
    sources = sorted({folder for module in modules if (folder := _source_folder(module)) and folder not in packages})
    return [*dict.fromkeys(packages), *sources]


def _source_folder(module: str) -> str | None:
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return str(origin.parent.parent if origin.name == "__init__.py" else origin.parent)


def share(folder: Path) -> None:
    """Write the `.pth` file of the environment in this folder, where it is not as it should be.

    Raises:
        RequestError: it cannot be written.
    """
    content = "".join(f"{folder}\n" for folder in shared_paths())
    path = packages_of(folder) / SHARING
    try:
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            write_whole(path, content)
    except OSError as error:
        raise RequestError(f"Cannot write {path}: {error.strerror or error}.") from error


def write_whole(path: Path, content: str) -> None:
    """Write a text file that appears whole or not at all."""
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    Path(beside).replace(path)
