"""An exception of somebody's own code in words: what it says, and the file and line of that code where it arose."""

from __future__ import annotations

import site
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from ..errors import DippError, RequestError
from .messages import shown
from .packages import GROUP

MOST = 500
"""Characters of an exception's own words that a message holds."""


def raised(error: BaseException, *, place: bool = True) -> str:
    """`ZeroDivisionError: division by zero (mine.py, line 3: return 1 / 0)`, on one line and without a full stop.

    Args:
        error: as it was caught. Its place is the deepest line of its traceback that is neither the toolkit's nor a
            library's; without such a line none is named.
        place: whether that line is quoted. It is somebody's source, and not for strangers who ask over a network.
    """
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in str(error)).split()).rstrip(".")
    text = text if len(text) <= MOST else f"{text[:MOST]}..."
    words = f"{type(error).__name__}: {text}".rstrip(": ")
    line = own_line(error) if place else ""
    return f"{words} ({line})" if line else words


def own_line(error: BaseException | None) -> str:
    """`mine.py, line 3: return 1 / 0`; empty where no line of somebody's own is on the way to the error."""
    if error is None:
        return ""
    if isinstance(error, SyntaxError) and error.filename and is_own(error.filename):
        return _line(error.filename, error.lineno, error.text)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_own(frame.filename):
            return _line(frame.filename, frame.lineno, frame.line)
    return ""


def _line(file: str, number: int | None, text: str | None) -> str:
    path = Path(file)
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown(path)}, line {number}" + (f": {shown(text.strip())}" if text and text.strip() else "")


def is_own(file: str) -> bool:
    """Whether a source file is a user's or a plugin's, and not the toolkit's, Python's or a library's."""
    if file.startswith("<"):  # what has no source: frozen modules, exec
        return False
    path = Path(file).absolute()
    if any(folder in path.parents for folder in _toolkit()):
        return False
    return not any(folder in path.parents for folder in _libraries()) or any(
        folder in path.parents or folder == path for folder in _plugins()
    )


@cache
def _toolkit() -> tuple[Path, ...]:
    own = Path(__file__).absolute().parents[1]
    return own, own.parent / "cli" / "dipp_cli", own.parent / "dipp_cli"


@cache
def _libraries() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    named = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(Path(folder).absolute() for folder in (*named, *site.getsitepackages(), site.getusersitepackages()))


def _plugins() -> list[Path]:
    """The packages, or single files, of the installed plugins that have been imported, wherever they are installed."""
    modules = [sys.modules.get(point.module) for point in entry_points(group=GROUP)]
    files = [getattr(module, "__file__", None) for module in modules]
    paths = [Path(file).absolute() for file in files if file]
    return [path.parent if path.name == "__init__.py" else path for path in paths]


@contextmanager
def loading(kind: str, name: str) -> Iterator[None]:
    """Whatever other people's files or a user's code raise while they are loaded becomes a sentence.

    Raises:
        RequestError: in place of any other exception.
    """
    try:
        yield
    except DippError:
        raise
    except Exception as error:
        raise RequestError(f"The {kind} '{shown(name)}' cannot be loaded: {raised(error)}.") from error
