"""Files and folders that appear whole or not at all: killed before each touch of the file system, on a full disk."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from dipp_toolkit.evaluation.comparison import Comparison
from dipp_toolkit.utils.atomic import whole_file, whole_folder, write_tensors, write_text

KILLED = """
import os, signal, sys
from pathlib import Path
from dipp_toolkit.utils.atomic import whole_folder, write_text

TOUCHES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
left = int(sys.argv[1])

def count(event, arguments):
    global left
    if event in TOUCHES and any("thing" in str(one) for one in arguments):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
"""
FILE = "write_text(Path('thing'), 'new')"
FOLDER = """
with whole_folder(Path('thing')) as beside:
    beside.mkdir()
    (beside / 'a').write_text('new')
    (beside / 'b').write_text('new')
"""


def killed_at(moment: int, what: str, folder: Path) -> bool:
    """Whether the process got so far as to be killed before its touch of the file system with this number."""
    done = subprocess.run([sys.executable, "-c", KILLED + what, str(moment)], cwd=folder, check=False)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


def content(folder: Path) -> set[tuple[str, str]]:
    return {(path.name, path.read_text()) for path in folder.iterdir()}


def test_a_file_that_a_kill_ended_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    moments = 0
    while True:
        write_text(tmp_path / "thing", "old")
        if not killed_at(moments, FILE, tmp_path):
            break
        moments += 1
        assert (tmp_path / "thing").read_text() in ("old", "new")
    assert moments >= 2, "at least opened and renamed"
    assert content(tmp_path) == {("thing", "new")}, "what kills left beside it is gone"


def test_a_folder_that_a_kill_ended_is_whole(tmp_path: Path) -> None:
    """Old, new, or for one moment away: then the old one lies beside it, and nothing of both is mixed."""
    thing, older, moments = tmp_path / "thing", tmp_path / ".thing.older", 0
    old, new = {("a", "old")}, {("a", "new"), ("b", "new")}
    while True:
        with whole_folder(thing) as beside:
            beside.mkdir()
            (beside / "a").write_text("old")
        assert [path.name for path in tmp_path.iterdir()] == ["thing"]
        if not killed_at(moments, FOLDER, tmp_path):
            break
        moments += 1
        assert content(thing) in (old, new) if thing.exists() else content(older) == old
    assert moments >= 6
    assert content(thing) == new


def no_space(*given: Any, **named: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        Exception("No space left on device (os error 28)"),  # as the tokenizers library has it
    ],
)
def test_an_error_of_the_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path, error: Exception) -> None:
    write_text(tmp_path / "thing", "old")
    with pytest.raises(OSError) as caught, whole_file(tmp_path / "thing") as beside:
        beside.write_text("a part")
        raise error
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "thing"))
    assert content(tmp_path) == {("thing", "old")}, "and what was written up to then takes no room"


def test_a_file_in_a_folder_is_named_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, whole_folder(tmp_path / "final") as beside:
        beside.mkdir()
        raise OSError(errno.ENOSPC, "No space left on device", beside / "unet" / "weights")
    assert caught.value.filename == str(tmp_path / "final" / "unet" / "weights")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_the_disk_refuses_is_named_by_its_place(tmp_path: Path) -> None:
    """`shutil.copytree` gathers what went wrong into one error without a number."""
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")

    def refuse(source: Any, target: Any, *given: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    with pytest.raises(OSError) as caught, whole_folder(tmp_path / "final") as beside:
        shutil.copytree(tmp_path / "vae", beside / "vae", copy_function=refuse)
    assert (caught.value.errno, caught.value.strerror) == (errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "final" / "vae" / "config.json")
    with pytest.raises(OSError) as caught, whole_folder(tmp_path / "final") as beside:
        refuse(tmp_path / "vae", beside / "vae")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "final" / "vae"), None)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="own"), whole_file(tmp_path / "thing") as beside:
        beside.write_text("a part")
        raise ValueError("of its own")
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        write_text(Path("/dev/full"), "lost")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")
    write_text(Path(os.devnull), "lost")
    assert Path("/dev/full").is_char_device() and Path(os.devnull).is_char_device()


def test_tensors_that_are_no_contiguous_piece_are_written(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3).T.requires_grad_()
    write_tensors(tmp_path / "thing", {"a": tensor}, {"about": "this"}, shared=True)
    assert torch.equal(load_file(tmp_path / "thing")["a"], tensor)
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


@pytest.mark.parametrize("touch", range(3))
def test_the_pictures_from_before_outlive_a_comparison_that_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, touch: int
) -> None:
    """At the end of a run: killed or refused by the disk at the first sheet, the second, or the index."""
    images = torch.rand(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    Comparison(["a", "b"], [1], {"before": images}).save(tmp_path)
    earlier = Comparison.load(tmp_path).images["before"]
    rename, calls = Path.replace, iter(range(10))
    monkeypatch.setattr(Path, "replace", lambda *given: no_space() if next(calls) == touch else rename(*given))
    whole = Comparison(["a", "b"], [1], {"before": earlier, "after": 1 - earlier})
    with pytest.raises(OSError, match="No space left"):
        whole.save(tmp_path)
    assert torch.equal(Comparison.load(tmp_path).images["before"], earlier)
    whole.save(tmp_path)
    assert Comparison.load(tmp_path).images.keys() == {"before", "after"}
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]
