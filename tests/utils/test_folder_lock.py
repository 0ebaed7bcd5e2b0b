"""One process at a time is at work in a folder, and a dead one in none."""

from __future__ import annotations

import errno
import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dipp_toolkit.errors import RequestError
from dipp_toolkit.utils.folder_lock import LOCK, locked

HOLDER = """
import os, sys
from pathlib import Path
from dipp_toolkit.utils.folder_lock import locked
with locked(Path(sys.argv[1])):
    worker = os.fork() if sys.argv[2] == "forks" else 0
    if worker == 0:  # it is at work by now
        print("holds", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_refused_and_the_file_goes_with_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path) as lock:
        assert lock.held
        with (
            pytest.raises(RequestError, match=r"Another process is at work in the folder .*\(process \d+ on ") as said,
            locked(tmp_path),
        ):
            raise AssertionError("two at work")
        assert "--out" in str(said.value)
        assert (tmp_path / LOCK).is_file(), "whoever is refused takes nothing away"
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("worker", ["alone", "forks"])
def test_a_killed_process_holds_no_lock_nor_does_a_worker_that_it_forked(tmp_path: Path, worker: str) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path), worker]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"holds\n"
        with pytest.raises(RequestError, match=f"process {holder.pid} on"), locked(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert (tmp_path / LOCK).is_file()
        with locked(tmp_path) as lock:
            assert lock.held
    assert list(tmp_path.iterdir()) == []


def test_what_stands_in_the_files_place_is_no_way_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / LOCK).symlink_to(tmp_path / "theirs")
    with locked(folder):
        assert not (folder / LOCK).is_symlink()
    assert (tmp_path / "theirs").read_text() == "mine"
    (folder / LOCK).mkdir()
    with pytest.raises(RequestError, match="Cannot write the folder"), locked(folder):
        pass


def test_a_strangers_words_in_the_file_are_shown_escaped(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / LOCK).write_bytes(b"\x1b[31mred\xff" * 100)
        with pytest.raises(RequestError) as said, locked(tmp_path):
            pass
    assert "\x1b" not in str(said.value) and len(str(said.value)) < 600


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_keeps_nobody_out_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*given: object) -> None:
        raise OSError(number, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path) as lock:
        assert not lock.held
    assert list(tmp_path.iterdir()) == []
