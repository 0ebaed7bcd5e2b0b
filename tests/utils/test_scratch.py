"""Rows outside of memory: what was appended is there, and no file is left."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from dipp_toolkit.errors import RequestError
from dipp_toolkit.utils import spill
from dipp_toolkit.utils.spill import BLOCK, Rows, scratch_file


@pytest.mark.parametrize("count", [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_rows_come_back_in_order(count: int) -> None:
    one, parts, fields = Rows(np.int64), Rows(np.int64), Rows([("a", "<i8"), ("b", "<u4")])
    for index in range(count):
        one.append(index)
        fields.append((index, index % 7))
    for start in range(0, count, 1000):
        parts.extend(np.arange(start, min(start + 1000, count)))
    assert np.array_equal(one.array(), np.arange(count)) and np.array_equal(parts.array(), np.arange(count))
    array = fields.array()
    assert np.array_equal(array["a"], np.arange(count)) and np.array_equal(array["b"], np.arange(count) % 7)


def test_many_rows_are_mapped_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path))
    rows = Rows(np.int64)
    rows.extend(np.arange(5 * BLOCK))
    array = rows.array()
    del rows
    gc.collect()
    array[::-1].sort()  # it may be written to
    assert array[0] == 5 * BLOCK - 1
    assert list((tmp_path / "scratch").iterdir()) == []
    assert f"{tmp_path}/scratch" in Path("/proc/self/maps").read_text()
    del array
    gc.collect()
    assert f"{tmp_path}/scratch" not in Path("/proc/self/maps").read_text()


def test_files_go_elsewhere_where_the_cache_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "file"))
    with scratch_file() as file:
        file.write(b"x" * (spill.HELD_BYTES + 1))
        assert os.pread(file.fileno(), 1, spill.HELD_BYTES) == b"x"


def test_a_full_disk_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def rollover(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(spill, "scratch_file", Full)
    with pytest.raises(RequestError, match=r"temporary file: No space left.*DIPP_CACHE"):
        Rows(np.int64).extend(np.arange(2 * BLOCK))
