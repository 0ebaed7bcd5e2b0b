"""Dry runs of a second process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dipp_toolkit.planning import ahead
from dipp_toolkit.planning.ahead import Call, Remembered, made_ahead

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="nothing is made ahead on one core"
)


def made_by(path: Path) -> int:
    """Who makes this; and a mark that it was begun."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    return os.getpid()


def wait_for(path: Path) -> None:
    """Until something is begun."""
    while not path.exists():
        os.sched_yield()


def makers(path: Path) -> Iterator[int]:
    """Processes that made something."""
    return map(int, path.read_text(encoding="utf-8").split())


def test_a_result_comes_from_the_process_that_began_with_it(tmp_path: Path) -> None:
    function = Remembered(made_by)
    with made_ahead([Call(function, (tmp_path / "there",))]):
        wait_for(tmp_path / "there")
        assert function(tmp_path / "there") != os.getpid()
        assert function(tmp_path / "here") == os.getpid(), "a call that nobody listed"
    assert list(makers(tmp_path / "there")) == [function(tmp_path / "there")], "made once, and kept"
    function.cache_clear()
    assert function(tmp_path / "there") == os.getpid()


def test_every_call_is_made_once_whoever_makes_it(tmp_path: Path) -> None:
    function = Remembered(made_by)
    paths = [tmp_path / f"{number}" for number in range(40)]
    with made_ahead([Call(function, (path,)) for path in paths]):
        for path in reversed(paths):
            function(path)
    assert all(len(list(makers(path))) == 1 for path in paths)


def refused(path: Path) -> int:
    """Fails everywhere."""
    made_by(path)
    raise ValueError("not like this")


def test_what_fails_there_fails_here_with_its_own_words(tmp_path: Path) -> None:
    function = Remembered(refused)
    with made_ahead([Call(function, (tmp_path / "there",))]):
        wait_for(tmp_path / "there")
        with pytest.raises(ValueError, match="not like this"):
            function(tmp_path / "there")


def test_a_failure_that_was_told_before_is_not_waited_for(tmp_path: Path) -> None:
    fails, works = Remembered(refused), Remembered(made_by)
    with made_ahead([Call(fails, (tmp_path / "first",)), Call(works, (tmp_path / "second",))]):
        wait_for(tmp_path / "second")
        assert works(tmp_path / "second") != os.getpid()
        with pytest.raises(ValueError, match="not like this"):
            fails(tmp_path / "first")


def gone(path: Path, home: int) -> int:
    """Ends the process, where it is not this one."""
    made_by(path)
    if os.getpid() != home:
        os._exit(1)
    return os.getpid()


def test_a_process_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    function = Remembered(gone)
    with made_ahead([Call(function, (tmp_path / "there", os.getpid()))]):
        wait_for(tmp_path / "there")
        assert function(tmp_path / "there", os.getpid()) == os.getpid()


def test_one_core_makes_everything_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead.os, "sched_getaffinity", lambda _: {0})
    function = Remembered(made_by)
    with made_ahead([Call(function, (tmp_path / "here",))]):
        assert not (tmp_path / "here").exists()
        assert function(tmp_path / "here") == os.getpid()
