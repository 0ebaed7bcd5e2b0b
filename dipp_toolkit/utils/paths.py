"""Paths that people and files name: refused with a sentence where they cannot exist, and where they leave a folder.

Names come from command lines, settings, indexes and other people's folders. What is written or removed below a folder
stays below it: `..`, absolute names and links that lead elsewhere are refused, and removing a link removes the link.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..errors import RequestError
from .messages import shown


def user_path(name: str | Path) -> Path:
    """A path as somebody typed it, `~` replaced; whether anything is there does not matter.

    Raises:
        RequestError: nothing can be there: it holds a NUL, is too long, is another user's unknown home, or lies in a
            folder that may not be looked into.
    """
    try:
        path = Path(name).expanduser()
        str(path).encode()  # messages and settings files have to hold it
        path.stat()  # raises what any other look at it would
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or _why(error)
        raise RequestError(f"'{shown(name)}' cannot be a file or folder: {reason}.") from error
    return path


def cache_place(kind: str) -> Path:
    """Where files of a kind are kept between runs: `$DIPP_CACHE/KIND`, or `~/.cache/dipp/KIND`."""
    return Path(os.environ.get("DIPP_CACHE", "~/.cache/dipp")).expanduser() / kind


def _why(error: Exception) -> str:
    return "it is not valid text" if isinstance(error, UnicodeError) else str(error).rstrip(".") or type(error).__name__


def is_there(name: str | Path) -> bool:
    """Whether a name is that of a file or folder; False for what cannot be one."""
    try:
        return user_path(name).exists()
    except RequestError:
        return False


def check_folder_place(path: Path, what: str) -> None:
    """Refuse a folder that cannot be made or used because a file stands in its way.

    Args:
        path: of the folder, which need not exist.
        what: it is, for the message: `"bench's folder"`.

    Raises:
        RequestError: with the file.
    """
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise RequestError(f"The {what} {shown(path)} cannot be made: {shown(part)} is a file.")


def below(folder: Path, *names: str | Path) -> Path:
    """The path of names below a folder.

    Args:
        folder: it may be a link itself, and need not exist.
        names: from anywhere.

    Raises:
        RequestError: a name is absolute or climbs out with `..`, or a link on the way leads out of the folder.
    """
    return check_below(folder.joinpath(*names), folder)


def check_below(path: Path, folder: Path) -> Path:
    """Refuse a path that is not below a folder once all links are followed; returns the path.

    Raises:
        RequestError: it is not, or this cannot be determined.
    """
    try:
        root, real = folder.resolve(), path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL, a name that is too long
        raise RequestError(f"'{shown(path)}' cannot be a file or folder: {_why(error)}.") from error
    if root not in real.parents:
        raise RequestError(
            f"'{shown(path)}' leads out of {folder}, to '{shown(real)}'; what belongs to a folder is read, written and "
            "removed there alone. Remove the link or the name, or choose another folder."
        )
    return path


def check_all_below(paths: Iterable[Path], folder: Path) -> None:
    """`check_below` for each; those that do not exist yet are fine.

    Raises:
        RequestError: one leads out of the folder.
    """
    for path in paths:
        check_below(path, folder)


def remove_below(path: Path, folder: Path) -> None:
    """Remove a file or a whole folder below `folder`, where it is there. Of a link the link alone is removed.

    Raises:
        RequestError: it does not lie below the folder.
        OSError: it cannot be removed.
    """
    if path.parent.resolve() != folder.resolve():
        check_below(path.parent, folder)
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def unlinked(path: Path) -> Path:
    """Remove a link in the place of a file that is about to be written, so that the file is made here; returns it."""
    if path.is_symlink():
        path.unlink()
    return path


def is_local_name(name: str | Path) -> bool:
    """Whether a name can only be that of a file or folder here, as it is not one of a repository, `OWNER/NAME`."""
    return str(name).startswith((".", "/", "~")) or str(name).count("/") != 1


def looks_like_path(name: str) -> bool:
    """Whether a name means a folder or file: it exists as one, or is written like one."""
    return name.startswith((".", "/", "~")) or "/" in name or (bool(name) and is_there(name))
