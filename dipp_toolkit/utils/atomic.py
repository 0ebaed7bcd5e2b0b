"""Files and folders that appear whole or not at all: put together beside their place, flushed, then renamed.

Whatever ends a process in between, a kill or a full disk, leaves what was there before. What it leaves beside the place
is removed when the same file or folder is written again. An error of the disk names the file that was to be written.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .paths import remove_below, unlinked

if TYPE_CHECKING:
    from torch import Tensor


def beside_of(path: Path) -> Path:
    """Where a file or folder is put together before it is renamed."""
    return path.with_name(f".{path.name}.partial")


def older_of(folder: Path) -> Path:
    """Where a folder lies for the moment in which another takes its place."""
    return folder.with_name(f".{folder.name}.older")


def fsync(path: Path) -> None:
    """Have a file's or folder's content on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path, beside: Path | None = None) -> Iterator[None]:
    """Errors of the disk name the file or folder that is being written.

    Args:
        path: its place.
        beside: where it is put together; names below it are reported as names below its place.

    Raises:
        OSError: as for any file; also where a library has an error of its own for that.
    """
    try:
        yield
    except shutil.Error as error:  # of a folder that is copied: all that went wrong, as names and texts
        name, reason = error.args[0][-1][1:] if isinstance(error.args[0], list) else (path, str(error))
        number = re.search(r"\[Errno (\d+)\]", reason)
        if number is None:
            raise
        raise _about(int(number[1]), _place(name, path, beside)) from error
    except OSError as error:
        error.filename, error.filename2 = _place(error.filename2 or error.filename or path, path, beside), None
        raise
    except Exception as error:  # safetensors and tokenizers, which are written in Rust, have it in their text
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise _about(int(number[1]), str(path)) from error


def _about(number: int, name: str) -> OSError:
    return OSError(number, os.strerror(number), name)


def _place(name: str | bytes | os.PathLike[str], path: Path, beside: Path | None) -> str:
    """A name as it will be once what is beside its place has been renamed."""
    name = os.fsdecode(name)
    if beside is not None and (name == str(beside) or name.startswith(f"{beside}{os.sep}")):
        return f"{path}{name[len(str(beside)) :]}"
    return name


def _is_device(path: Path) -> bool:
    """Whether there is something that is written to and never replaced, such as /dev/stdout or a pipe."""
    if path.is_symlink():
        return path.parent == Path("/dev")
    return path.exists() and not path.is_file()


@contextmanager
def whole_file(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A place to write a file to, which becomes `path` at the end of the context; a link in its place is replaced.

    Args:
        path: in a folder that exists; of a device or a pipe, the place is the thing itself.
        shared: several processes may write this file, the same content each; it is cheap to make again, so that it is
            not flushed to the disk.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    if _is_device(path):
        with naming(path):
            yield path
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial") if shared else beside_of(path)
    with naming(path, beside):
        try:
            yield unlinked(beside)
            if not shared:
                fsync(beside)
            beside.replace(path)
        except BaseException:
            with suppress(OSError):  # what went wrong first is what counts
                beside.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader finds the old content or the new, never a part.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, *, shared: bool = False
) -> None:
    """Write a safetensors file, as `write_text` writes text.

    Args:
        path: in a folder that exists.
        tensors: any shapes; copied to the host.
        metadata: of the file's header.
        shared: see `whole_file`.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    from safetensors.torch import save_file

    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path, shared=shared) as beside:
        save_file(content, beside, metadata=None if metadata is None else dict(metadata))


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A place to make a folder at, which becomes `folder` at the end of the context; an older one is replaced.

    The place does not exist yet, its parent does. Where nothing is made there, nothing happens.

    Raises:
        OSError: it cannot be written; an older one is untouched.
    """
    beside = beside_of(folder)
    with naming(folder, beside):
        remove_below(beside, folder.parent)
        beside.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield beside
            if beside.is_dir():
                for path in (*beside.rglob("*"), beside):
                    if not path.is_symlink():
                        fsync(path)
                put_in_place(beside, folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


def put_in_place(beside: Path, folder: Path) -> None:
    """Rename a folder that is whole to its place; an older one, or a link, makes room first and is then removed."""
    older = older_of(folder)
    if folder.is_symlink():
        folder.unlink()
    if folder.exists():
        remove_below(older, folder.parent)
        folder.rename(older)
    beside.rename(folder)
    remove_below(older, folder.parent)
    fsync(folder.parent)
