"""Where start weights lie, and where what is converted of them is kept."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.files.fetching import NotHere, without_fetching
from dipp_toolkit.models.start_weights import source as sources
from dipp_toolkit.models.start_weights.source import parse_source
from dipp_toolkit.models.start_weights.store import converted_folder
from hub_errors import hub_error


@pytest.mark.parametrize(
    ("text", "hub", "inside", "scale"),
    [
        (
            "ByteDance/Hyper-SD:Hyper-SDXL-1step-Unet.safetensors",
            "ByteDance/Hyper-SD",
            "Hyper-SDXL-1step-Unet.safetensors",
            1.0,
        ),
        ("owner/name:a/b.safetensors=0.125", "owner/name", "a/b.safetensors", 0.125),
        ("owner/name:a/b.safetensors=-1e-1", "owner/name", "a/b.safetensors", -0.1),
        ("owner/name", "owner/name", "", 1.0),
        ("owner/name:unet/", "owner/name", "unet", 1.0),
        ("folder/file.safetensors", None, "", 1.0),
        ("./file.safetensors=2", None, "", 2.0),
    ],
)
def test_an_address_says_repository_file_and_scale(text: str, hub: str | None, inside: str, scale: float) -> None:
    found = parse_source(text, scaled=True)
    assert (found.hub, found.inside, found.scale) == (hub, inside, scale)
    assert not found.text.endswith(("=0.125", "=-1e-1", "=2"))


def test_what_is_here_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("owner").mkdir()
    Path("owner/name").write_bytes(b"x")
    Path("a=0.5").write_bytes(b"x")
    assert parse_source("owner/name").file() == Path("owner/name")
    assert parse_source("a=0.5", scaled=True).scale == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not name weights"),
        ("owner/name:../secret.safetensors", "leads out of the repository owner/name"),
        ("owner/name:/etc/passwd", "leads out of the repository owner/name"),
        ("owner/name:file.safetensors=much", "expected a number"),
        ("owner/name:file.safetensors=inf", "expected a number"),
        ("https://huggingface.co/a/b/resolve/main/c/d.safetensors", "write a/b:c/d.safetensors"),
        ("s3://bucket/file", "does not name weights"),
    ],
)
def test_what_is_no_address_is_a_sentence(text: str, words: str) -> None:
    with pytest.raises(RequestError, match=words.replace(".", r"\.")):
        parse_source(text, scaled=True)


def test_a_local_file_that_is_not_there_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(RequestError, match=r"is not there .*Did you mean .*/weights\.safetensors\?"):
        parse_source(f"{tmp_path}/weight.safetensors").file()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RepositoryNotFoundError, ("no repository owner/name", "name another copy", "hf auth login")),
        (GatedRepoError, ("accept its licence at https://huggingface.co/owner/name", "hf auth login")),
        (RemoteEntryNotFoundError, ("owner/name has no file a.safetensors", "owner/name/tree/main")),
        (LocalEntryNotFoundError, ("cannot be reached", "'hf download owner/name a.safetensors'")),
        (OSError, ("cannot be fetched", "hf download owner/name a.safetensors")),
    ],
)
def test_what_the_hub_says_is_one_sentence_with_the_way_out(
    error: type[Exception], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Path:
        raise hub_error(error)

    monkeypatch.setattr(sources, "hub_file", refuse)
    with pytest.raises(RequestError) as raised:
        parse_source("owner/name:a.safetensors").file()
    assert "\n" not in str(raised.value)
    for word in words:
        assert word in str(raised.value)


def test_a_dry_run_notes_what_it_would_fetch() -> None:
    with without_fetching() as missing, pytest.raises(NotHere):
        parse_source("owner/name:a.safetensors").file()
    assert list(missing) == ["a.safetensors of huggingface.co/owner/name"]


def test_a_conversion_is_made_once_and_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path))
    made = []

    def fails(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RequestError("does not fit")

    def make(folder: Path) -> None:
        assert not list(folder.iterdir())
        (folder / "whole").write_text("x")
        made.append(folder)

    with pytest.raises(RequestError, match="does not fit"):
        converted_folder(["a", 1], fails)
    assert [path.suffix for path in (tmp_path / "converted").iterdir()] == [".lock"]
    first = converted_folder(["a", 1], make)
    assert converted_folder(["a", 1], fails) == first
    assert (first / "whole").is_file()
    assert converted_folder(["a", 2], make) != first
    assert len(made) == 2


PROCESS = """
import sys, time
from pathlib import Path
from dipp_toolkit.models.start_weights.store import converted_folder

def make(folder):
    print("made", flush=True)
    (folder / "a").write_text("x")
    time.sleep(0.2)
    (folder / "b").write_text("x")

print(sorted(path.name for path in converted_folder("same", make).iterdir()))
"""


KILLED = """
import os, signal
from dipp_toolkit.models.start_weights.store import converted_folder

def make(folder):
    (folder / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)

converted_folder("same", make)
"""


def test_what_a_kill_left_is_not_taken_for_whole_and_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", KILLED], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "converted").rglob("half"))
    folder = converted_folder("same", lambda place: (place / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert not list((tmp_path / "converted").rglob("half"))


def test_without_locks_of_the_file_system_it_is_made_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_lock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setenv("DIPP_CACHE", str(tmp_path))
    monkeypatch.setattr("fcntl.flock", no_lock)
    folder = converted_folder("thing", lambda place: (place / "a").touch())
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert sorted(path.suffix for path in folder.parent.iterdir()) == ["", ".lock"]


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "DIPP_CACHE": str(tmp_path)},
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [output.splitlines()[-1] for output in outputs] == ["['a', 'b']"] * 2
    assert "".join(outputs).count("made") == 1
