"""The file of a prompt cache: what comes is right or a sentence, whatever becomes of it and whoever else is there."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.prompts.cache import NAME, PromptCache, digest_of
from dipp_toolkit.prompts.cache import _checksum as checksum_of

ROOT = Path(__file__).parent.parent.parent
TEXTS = [f"prompt {k}" for k in range(40)]
DAMAGED = rf"{NAME} is damaged or is not a prompt cache .* Delete it; its prompts are encoded again"


def value_of(prompt: str) -> float:
    return float(sum(prompt.encode()))


def condition_of(prompts: list[str]) -> Condition:
    return Condition(tuple(prompts), {"embedding": torch.tensor([[value_of(prompt)] * 3 for prompt in prompts])})


def fill(folder: Path, prompts: list[str], chunk: int = 8) -> PromptCache:
    cache = PromptCache(folder)
    for start in range(0, len(prompts), chunk):
        cache.add(condition_of(prompts[start : start + chunk]))
    return cache


def check(cache: PromptCache, prompts: list[str]) -> None:
    read = cache.read(prompts)
    assert read.prompts == tuple(prompts)
    assert not prompts or read.tensors["embedding"].tolist() == [[value_of(prompt)] * 3 for prompt in prompts]


def rows_in(folder: Path) -> int:
    with closing(sqlite3.connect(folder / NAME)) as database:
        return int(database.execute("SELECT count(*) FROM prompts").fetchone()[0])


def changed(*statements: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    return spoil


def replaced(content: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.unlink()
        path.write_bytes(content)

    return spoil


def foreign(path: Path) -> None:
    path.unlink()
    changed("CREATE TABLE chunks (name TEXT)")(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_link(target: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return spoil


WAYS: dict[str, Callable[[Path], None]] = {
    "garbage": replaced(random.Random(0).randbytes(10_000)),
    "pickled": replaced(pickle.dumps({"places": {}})),
    "saved by torch": lambda path: torch.save({"embedding": torch.zeros(2)}, path),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:17_000]),
    "longer header": lambda path: path.write_bytes((10**8).to_bytes(8, "little") + b"{" * 100),
    "foreign": foreign,
    "a trigger": changed("CREATE TRIGGER t AFTER INSERT ON prompts BEGIN DELETE FROM prompts; END"),
    "another table": changed("CREATE TABLE more (name TEXT)"),
    "a folder": a_folder,
    "a pipe": a_pipe,
    "a link to a device": a_link("/dev/zero"),
    "a link to nowhere": a_link("nowhere"),
}
"""What is seen when the file is opened."""
ROWS: dict[str, Callable[[Path], None]] = {
    "exchanged": changed(
        "UPDATE prompts SET digest = CAST(rowid AS TEXT)",
        *(f"UPDATE prompts SET digest = x'{digest_of(text).hex()}' WHERE rowid = {(k + 1) % 40 + 1}"
          for k, text in enumerate(TEXTS)),
    ),
    "of another type": changed("UPDATE prompts SET tensors = 3"),
    "no text": changed("UPDATE prompts SET lengths = CAST(x'ff' AS TEXT)"),
    "another length": changed("UPDATE prompts SET lengths = '{\"embedding\": 4}'"),
    "no cut": changed("UPDATE prompts SET cut = 'x'"),
    "no checksum": changed("UPDATE prompts SET checksum = 'x'"),
    "a bit": changed("UPDATE prompts SET tensors = CAST(substr(tensors, 1, length(tensors) - 1) || x'07' AS BLOB)"),
}  # fmt: skip
"""What is seen when a row is read."""


@pytest.mark.parametrize("spoil", WAYS)
def test_a_file_that_is_no_cache_is_named_and_can_be_deleted(tmp_path: Path, spoil: str) -> None:
    fill(tmp_path / "cache", TEXTS)
    path = tmp_path / "cache" / NAME
    WAYS[spoil](path)
    with pytest.raises(RequestError, match=DAMAGED):
        check(PromptCache(tmp_path / "cache"), TEXTS)
    path.rmdir() if path.is_dir() else path.unlink()
    assert PromptCache(tmp_path / "cache").missing(TEXTS) == TEXTS
    check(fill(tmp_path / "cache", TEXTS), TEXTS)


@pytest.mark.parametrize("spoil", ROWS)
def test_a_row_that_was_changed_is_not_read(tmp_path: Path, spoil: str) -> None:
    cache = fill(tmp_path, TEXTS)
    check(cache, TEXTS)
    ROWS[spoil](tmp_path / NAME)
    for reader in (cache, PromptCache(tmp_path)):
        with pytest.raises(RequestError, match=DAMAGED):
            reader.read(TEXTS)


@pytest.mark.parametrize("spoil", [way for way in WAYS if "a " not in way] + ["a trigger"])
def test_a_file_that_is_spoiled_while_it_is_in_use(tmp_path: Path, spoil: str) -> None:
    """What comes is right, or a sentence with the file's name."""
    cache = fill(tmp_path / "cache", TEXTS)
    WAYS[spoil](tmp_path / "cache" / NAME)
    try:
        check(cache, TEXTS)
        cache.add(condition_of(["one more"]))
    except RequestError as error:
        assert NAME in str(error)


def test_an_emptied_file_is_an_empty_cache(tmp_path: Path) -> None:
    cache = fill(tmp_path, TEXTS)
    (tmp_path / NAME).write_bytes(b"")
    assert PromptCache(tmp_path).missing(TEXTS) == TEXTS
    fill(tmp_path, TEXTS)
    check(cache, TEXTS)


def test_a_file_that_is_exchanged_or_removed_is_noticed(tmp_path: Path) -> None:
    cache = fill(tmp_path / "a", TEXTS[:8])
    fill(tmp_path / "b", TEXTS[8:])
    (tmp_path / "b" / NAME).replace(tmp_path / "a" / NAME)
    check(cache, TEXTS[8:])
    with pytest.raises(RequestError, match=r"The prompt 'prompt 0' is not in the prompt cache .*dipp prompts encode"):
        cache.read(TEXTS[:1])
    (tmp_path / "a" / NAME).unlink()
    assert cache.missing(TEXTS) == TEXTS
    cache.add(condition_of(TEXTS))
    check(cache, TEXTS)


@pytest.mark.parametrize("seed", range(20))
def test_a_file_with_some_bytes_changed_is_right_or_a_sentence(tmp_path: Path, seed: int) -> None:
    fill(tmp_path, TEXTS)
    draw, content = random.Random(seed), bytearray((tmp_path / NAME).read_bytes())
    for _ in range(draw.choice([1, 20, 500])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    (tmp_path / NAME).write_bytes(content)
    try:
        cache = PromptCache(tmp_path)
        missing = cache.missing(TEXTS)
        if missing:
            cache.add(condition_of(missing))
        check(cache, TEXTS)
    except RequestError as error:
        assert NAME in str(error) or "is not in the prompt cache" in str(error)


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "cache", TEXTS)
    (tmp_path / "precious").write_bytes(b"")
    a_link(str(tmp_path / "precious"))(tmp_path / "cache" / NAME)
    for use in (lambda cache: cache.read(TEXTS), lambda cache: cache.add(condition_of(TEXTS))):
        with pytest.raises(RequestError, match="is a link or not a file"):
            use(PromptCache(tmp_path / "cache"))
    assert (tmp_path / "precious").read_bytes() == b""


def test_chunks_of_older_versions_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "0123.safetensors").write_bytes(b"damaged")
    (tmp_path / "index.sqlite").write_bytes(b"damaged")
    assert PromptCache(tmp_path).missing(TEXTS) == TEXTS
    check(fill(tmp_path, TEXTS), TEXTS)
    assert (tmp_path / "0123.safetensors").read_bytes() == (tmp_path / "index.sqlite").read_bytes() == b"damaged"


def test_a_missing_folder_holds_nothing_and_is_not_made(tmp_path: Path) -> None:
    cache = PromptCache(tmp_path / "none")
    assert cache.missing(["a", "b", "a"]) == ["a", "b"] and "a" not in cache
    with pytest.raises(RequestError, match="'a' is not in the prompt cache"):
        cache.read(["a"])
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="Cannot write the prompt cache"):
        PromptCache(tmp_path / "file").add(condition_of(["a"]))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    fill(tmp_path, TEXTS)
    tmp_path.chmod(0o500)
    try:
        check(PromptCache(tmp_path), TEXTS)
        with pytest.raises(RequestError, match="Cannot write the prompt cache"):
            PromptCache(tmp_path).add(condition_of(["a"]))
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, TEXTS)

    class Full(sqlite3.Connection):
        def execute(self, *given: Any) -> sqlite3.Cursor:
            if given[0] == "BEGIN IMMEDIATE":
                (pages,) = super().execute("PRAGMA page_count").fetchone()
                super().execute(f"PRAGMA max_page_count = {pages + 1}")
            return super().execute(*given)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, **named, factory=Full))
    cache, more = PromptCache(tmp_path), [f"more {k}" for k in range(500)]
    with pytest.raises(RequestError, match=r"Cannot write the prompt cache .*: database or disk is full"):
        cache.add(condition_of(more))
    check(cache, TEXTS)
    assert cache.missing(more) == more
    monkeypatch.undo()
    check(fill(tmp_path, more), [*TEXTS, *more])


def unpickled(_: object) -> None:
    raise AssertionError("something was unpickled")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch exploded",)


def with_row(lengths: object, tensors: bytes) -> Callable[[Path], None]:
    """A row for the prompt "a" that has its right checksum, as whoever makes the file by hand would have it."""
    text = lengths if isinstance(lengths, str) else json.dumps(lengths)

    def spoil(path: Path) -> None:
        row = (digest_of("a"), 0, text, tensors, checksum_of(digest_of("a"), 0, text, tensors))
        with closing(sqlite3.connect(path)) as database:
            database.execute("INSERT INTO prompts VALUES (?, ?, ?, ?, ?)", row)
            database.commit()

    return spoil


FOUR = save({"embedding": torch.ones(4)})


@pytest.mark.parametrize(
    "spoil",
    [
        with_row({"embedding": 3}, pickle.dumps(Bomb())),
        with_row({"embedding": 3}, b""),
        with_row({"embedding": 3}, b"\xff" * 100),
        with_row({"embedding": 3}, (10**8).to_bytes(8, "little") + b"{" * 100),
        with_row("{", FOUR),
        with_row("[" * 100_000, FOUR),
        with_row('"ab"', FOUR),
        with_row(["a", 3], FOUR),
        with_row({}, FOUR),
        with_row({"other": 4}, FOUR),
        with_row({"embedding": 3}, FOUR),
        with_row({"embedding": "4"}, FOUR),
        with_row({"embedding": [4]}, FOUR),
        with_row({"embedding": -4}, FOUR),
        with_row({"embedding": 10**15}, FOUR),
        with_row({"embedding": 4}, save({"embedding": torch.tensor(1.0)})),
    ],
)
def test_a_row_made_by_hand_is_named_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "cache", TEXTS)
    spoil(tmp_path / "cache" / NAME)
    monkeypatch.setattr(pickle, "load", unpickled)
    monkeypatch.setattr(pickle, "loads", unpickled)
    with pytest.raises(RequestError, match=DAMAGED):
        PromptCache(tmp_path / "cache").read(["a"])
    assert not (tmp_path / "exploded").exists()
    check(PromptCache(tmp_path / "cache"), TEXTS)


def test_a_file_damaged_after_it_was_opened_is_named(tmp_path: Path) -> None:
    cache = fill(tmp_path, TEXTS)
    (tmp_path / NAME).write_bytes(b"x" * 100)
    with pytest.raises(RequestError, match=DAMAGED):
        cache.read(TEXTS)


def test_prompts_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    for k, tensors in enumerate(({"embedding": torch.zeros(1, 4)}, {"other": torch.zeros(1, 3)})):
        cache = fill(tmp_path / str(k), TEXTS)
        cache.add(Condition(("wide",), tensors))
        with pytest.raises(RequestError, match="has other tensors for the prompt 'wide' than for others"):
            PromptCache(tmp_path / str(k)).read([TEXTS[0], "wide"])


def test_one_file_is_open_and_none_is_mapped(tmp_path: Path) -> None:
    cache = fill(tmp_path, TEXTS, chunk=2)
    for _ in range(3):
        check(cache, random.Random(0).sample(TEXTS, len(TEXTS)))
    if Path("/proc/self/fd").exists():
        links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        assert len([link for link in links if tmp_path in link.parents]) == 1
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_prompts_that_are_written_again_stay_as_they_are(tmp_path: Path) -> None:
    """Another process may encode the same prompts at the same time."""
    cache = fill(tmp_path, TEXTS)
    check(cache, TEXTS)
    fill(tmp_path, TEXTS)
    PromptCache(tmp_path).add(Condition((TEXTS[0],), {"embedding": torch.zeros(1, 3)}))
    check(cache, TEXTS)
    check(PromptCache(tmp_path), TEXTS)
    assert rows_in(tmp_path) == len(TEXTS)


def test_threads_and_forks_read_at_once(tmp_path: Path) -> None:
    cache = fill(tmp_path, TEXTS)
    failures: list[BaseException] = []

    def reading(seed: int) -> None:
        try:
            for _ in range(20):
                check(cache, random.Random(seed).sample(TEXTS, 10))
        except BaseException as error:  # noqa: BLE001 -- what a thread raises is lost otherwise
            failures.append(error)

    threads = [threading.Thread(target=reading, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    child = os.fork()
    if child == 0:
        code = 1
        try:
            check(cache, TEXTS[::3])
            cache.add(condition_of(["of the child"]))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    check(cache, ["of the child", *TEXTS])


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_cache_file import condition_of
from dipp_toolkit.prompts.cache import PromptCache

folder, start, ready = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
cache = PromptCache(folder)
ready.touch()
while not (ready.parent / "go").exists():
    pass
for k in range(start, start + 60):
    prompts = [f"shared {{k - start}}", f"own {{k}}"]
    for prompt in cache.missing(prompts[:1]):
        cache.add(condition_of([prompt]))
    cache.add(condition_of(prompts[1:]))
    print(k, flush=True)
"""


def writer(folder: Path, start: int, ready: Path) -> subprocess.Popen[str]:
    code = WRITER.format(tests=str(ROOT / "tests" / "prompts"))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(start), str(ready)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


def started(folder: Path, tmp_path: Path, count: int) -> list[subprocess.Popen[str]]:
    """Writers that begin at the same moment."""
    ready = [tmp_path / f"ready{k}" for k in range(count)]
    writers = [writer(folder, 1000 * k, ready[k]) for k in range(count)]
    while not all(path.exists() for path in ready):
        assert all(process.poll() is None for process in writers)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    return writers


def intact(folder: Path) -> bool:
    with closing(sqlite3.connect(folder / NAME)) as database:
        return database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.slow
def test_several_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    writers = started(folder, tmp_path, 3)
    assert [process.wait() for process in writers] == [0, 0, 0]
    written = [f"own {1000 * k + j}" for k in range(3) for j in range(60)] + [f"shared {j}" for j in range(60)]
    cache = PromptCache(folder)
    check(cache, written)
    assert intact(folder) and rows_in(folder) == len(written)
    assert [path.name for path in folder.iterdir()] == [NAME]


@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_process_killed_before_it_commits(tmp_path: Path, call: int) -> None:
    fill(tmp_path, ["before"])
    child = os.fork()
    if child == 0:
        cache = PromptCache(tmp_path)
        commits = []

        def traced(statement: str) -> None:
            commits.append(statement == "COMMIT")
            if sum(commits) == call:
                os.kill(os.getpid(), signal.SIGKILL)

        connection = cache._connection
        assert connection is not None
        connection.execute("PRAGMA cache_size = 1")  # so that rows are in the file before they are committed
        connection.set_trace_callback(traced)
        for start in range(0, 40, 8):
            wide = torch.arange(8)[:, None] + torch.ones(8, 20_000)
            cache.add(Condition(tuple(TEXTS[start : start + 8]), {"embedding": wide}))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    cache = PromptCache(tmp_path)
    check(cache, ["before"])
    done = 8 * (call - 1)
    assert cache.missing(TEXTS) == TEXTS[done:] and intact(tmp_path) and rows_in(tmp_path) == 1 + done
    assert not done or cache.read(TEXTS[:done]).tensors["embedding"].shape == (done, 20_000)
    cache.add(condition_of(TEXTS[done:]))
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_whole_rows(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    for k, delay in enumerate((0.05, 0.02, 0.08)):
        (tmp_path / "go").unlink(missing_ok=True)
        (tmp_path / "ready0").unlink(missing_ok=True)
        (process,) = started(folder, tmp_path, 1)
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(k)]
        time.sleep(delay)  # somewhere in what it does then, wherever that is
        os.kill(process.pid, signal.SIGKILL)
        done = [f"own {line}" for line in "".join([*first, process.communicate()[0] or ""]).split()]
        assert len(done) >= k
        cache = PromptCache(folder)
        check(cache, [*done, *(f"shared {j}" for j in range(len(done)))])
        assert intact(folder), k
    PromptCache(folder).add(condition_of(["the last"]))
    assert [path.name for path in folder.iterdir()] == [NAME]
