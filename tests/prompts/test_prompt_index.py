"""The index of a prompt cache: what the chunks hold is found, whatever becomes of it and whoever else is there."""

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
from safetensors.torch import save_file

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.prompts import cache as prompt_cache
from dipp_toolkit.prompts import chunks as prompt_chunks
from dipp_toolkit.prompts import index
from dipp_toolkit.prompts.cache import PromptCache
from dipp_toolkit.prompts.chunks import write_chunk
from dipp_toolkit.prompts.index import NAME

ROOT = Path(__file__).parents[2]
TEXTS = [f"prompt {k}" for k in range(40)]


def value_of(prompt: str) -> float:
    return float(sum(prompt.encode()))


def condition_of(prompts: list[str]) -> Condition:
    return Condition(tuple(prompts), {"embedding": torch.tensor([[value_of(one)] * 3 for one in prompts])})


def fill(folder: Path, prompts: list[str], chunk: int = 8) -> PromptCache:
    cache = PromptCache(folder)
    for start in range(0, len(prompts), chunk):
        cache.add(condition_of(prompts[start : start + chunk]))
    return cache


def check(cache: PromptCache, prompts: list[str]) -> None:
    read = cache.read(prompts)
    assert read.prompts == tuple(prompts)
    assert not prompts or read.tensors["embedding"].tolist() == [[value_of(one)] * 3 for one in prompts]


def remembered(folder: Path) -> int:
    with closing(sqlite3.connect(folder / NAME)) as database:
        return int(database.execute("SELECT count(*) FROM places").fetchone()[0])


def test_chunks_without_an_index_are_found_and_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, TEXTS)
    (tmp_path / NAME).unlink()
    check(PromptCache(tmp_path), TEXTS)
    assert remembered(tmp_path) == len(TEXTS)
    monkeypatch.setattr(index, "open_chunk", None)
    check(PromptCache(tmp_path), TEXTS)


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(10_000))


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"places": {}}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE chunks (name TEXT)")


def with_a_trigger(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TRIGGER t AFTER INSERT ON chunks BEGIN DELETE FROM places; END")
        database.commit()


def exchanged(path: Path) -> None:
    """Every prompt is said to be somewhere else."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE places SET row = (row + 1) % 8")
        database.commit()


def of_another_type(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE places SET row = 'x'")
        database.commit()


def out_of_the_folder(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE chunks SET name = '../' || name")
        database.commit()


def no_text(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE chunks SET name = CAST(x'ff' AS TEXT) WHERE chunk = 1")
        database.commit()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


WAYS = [
    garbage, pickled, cut, emptied, foreign, with_a_trigger, exchanged, of_another_type, out_of_the_folder, no_text,
    a_folder,
]  # fmt: skip


@pytest.mark.parametrize("spoil", WAYS, ids=lambda one: one.__name__)
def test_a_spoiled_index_is_made_again(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    fill(tmp_path / "cache", TEXTS)
    spoil(tmp_path / "cache" / NAME)
    cache = PromptCache(tmp_path / "cache")
    check(cache, TEXTS)
    cache.add(condition_of(["one more"]))
    check(cache, ["one more", *TEXTS])
    check(PromptCache(tmp_path / "cache"), ["one more", *TEXTS])


@pytest.mark.parametrize("spoil", [one for one in WAYS if one is not a_folder], ids=lambda one: one.__name__)
def test_an_index_that_is_spoiled_while_it_is_in_use(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """What comes is right, or a sentence, and the next one to open the folder is fine."""
    cache = fill(tmp_path / "cache", TEXTS)
    spoil(tmp_path / "cache" / NAME)
    try:
        check(cache, TEXTS)
        cache.add(condition_of(["one more"]))
    except RequestError as error:
        assert NAME in str(error)
    check(PromptCache(tmp_path / "cache"), TEXTS)


@pytest.mark.parametrize("seed", range(20))
def test_an_index_with_some_bytes_changed_is_right_or_a_sentence(tmp_path: Path, seed: int) -> None:
    fill(tmp_path, TEXTS)
    draw, content = random.Random(seed), bytearray((tmp_path / NAME).read_bytes())
    for _ in range(draw.choice([1, 20, 500])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    (tmp_path / NAME).write_bytes(content)
    cache = PromptCache(tmp_path)
    missing = cache.missing(TEXTS)
    for start in range(0, len(missing), 8):
        cache.add(condition_of(missing[start : start + 8]))
    check(cache, TEXTS)


def test_a_link_in_the_place_of_the_index_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "cache", TEXTS)
    (tmp_path / "precious").write_bytes(b"")
    (tmp_path / "cache" / NAME).unlink()
    (tmp_path / "cache" / NAME).symlink_to(tmp_path / "precious")
    check(PromptCache(tmp_path / "cache"), TEXTS)
    assert (tmp_path / "precious").read_bytes() == b"" and not (tmp_path / "cache" / NAME).is_symlink()


def test_chunks_that_come_go_and_change_are_noticed(tmp_path: Path) -> None:
    fill(tmp_path, TEXTS)
    chunks = sorted(tmp_path.glob("*.safetensors"))
    with closing(sqlite3.connect(tmp_path / NAME)) as database:
        query = "SELECT name FROM places JOIN chunks USING (chunk) WHERE digest = ?"
        held = database.execute(query, (index.digest_of(TEXTS[0]),)).fetchone()[0]
    gone = tmp_path / held
    # The same prompts elsewhere as well: they are found there once the first chunk is gone.
    write_chunk(tmp_path / "zz.safetensors", condition_of(TEXTS[:2]))
    gone.unlink()
    cache = PromptCache(tmp_path)
    assert cache.missing(TEXTS) == TEXTS[2:8] and len(chunks) == 5
    check(cache, [*TEXTS[:2], *TEXTS[8:]])
    write_chunk(tmp_path / "zz.safetensors", condition_of(TEXTS[2:4]))
    with pytest.raises(RequestError, match=r"The prompt 'prompt 0' is not in the prompt cache .*dipp prompts encode"):
        cache.read(TEXTS[:1])
    check(cache, TEXTS[2:4])
    assert PromptCache(tmp_path).missing(TEXTS) == [*TEXTS[:2], *TEXTS[4:8]]


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
    for without_index in (False, True):
        if without_index:
            (tmp_path / NAME).unlink()
        tmp_path.chmod(0o500)
        try:
            check(PromptCache(tmp_path), TEXTS)
            with pytest.raises(RequestError, match="Cannot write the prompt cache"):
                PromptCache(tmp_path).add(condition_of(["a"]))
        finally:
            tmp_path.chmod(0o700)


def unpickled(_: object) -> None:
    raise AssertionError("something was unpickled")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch exploded",)


def chunk_of(metadata: dict[str, str] | None, rows: int = 2) -> Callable[[Path], object]:
    return lambda path: save_file({"embedding": torch.zeros(rows, 3)}, path, metadata=metadata)


def rows_of(rows: object, count: int = 4) -> Callable[[Path], object]:
    """A chunk of two prompts with three numbers each, of which four are kept, that says something else of its rows."""
    about = {"prompts": '["a", "b"]', "rows": json.dumps(rows)}
    return lambda path: save_file({"embedding": torch.zeros(count)}, path, metadata=about)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(pickle.dumps(Bomb())),
        lambda path: torch.save({"embedding": torch.zeros(2)}, path),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 100),
        lambda path: path.write_bytes((10**8).to_bytes(8, "little") + b"{" * 100),
        lambda path: path.mkdir(),
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("nowhere"),
        chunk_of(None),
        chunk_of({"prompts": "{"}),
        chunk_of({"prompts": "[" * 100_000}),
        chunk_of({"prompts": '"ab"'}),
        chunk_of({"prompts": '["a", 3]'}),
        chunk_of({"prompts": '["a", "b"]'}, 3),
        chunk_of({"other": '["a", "b"]'}),
        chunk_of({"prompts": '["a", "b"]'}),
        rows_of({}),
        rows_of({"other": {"length": 3, "ends": [2, 4]}}),
        rows_of({"embedding": {"length": 3, "ends": [2, 4]}}, 5),
        rows_of({"embedding": {"length": 3, "ends": [4]}}),
        rows_of({"embedding": {"length": 3, "ends": [0, 4]}}),
        rows_of({"embedding": {"length": 1, "ends": [2, 4]}}),
        rows_of({"embedding": {"length": 3, "ends": [5, 4]}}),
        rows_of({"embedding": {"length": "3", "ends": [2, 4]}}),
        rows_of({"embedding": [2, 4]}),
    ],
)
def test_a_file_that_is_no_chunk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "cache", TEXTS)
    spoil(tmp_path / "cache" / "bad.safetensors")
    monkeypatch.setattr(pickle, "load", unpickled)
    monkeypatch.setattr(pickle, "loads", unpickled)
    with pytest.raises(RequestError, match=r"bad\.safetensors is damaged. Delete it"):
        PromptCache(tmp_path / "cache")
    assert not (tmp_path / "exploded").exists()


def test_a_chunk_damaged_after_the_folder_was_opened_is_named(tmp_path: Path) -> None:
    cache = fill(tmp_path, TEXTS)
    for chunk in tmp_path.glob("*.safetensors"):
        chunk.write_bytes(chunk.read_bytes()[:-4])
    with pytest.raises(RequestError, match=r"\.safetensors is damaged"):
        cache.read(TEXTS)


def test_chunks_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    cache = fill(tmp_path, TEXTS)
    for tensors in ({"embedding": torch.zeros(1, 4)}, {"other": torch.zeros(1, 3)}):
        cache.add(Condition(("wide",), tensors))
        with pytest.raises(RequestError, match="holds other tensors than the rest of its folder"):
            PromptCache(tmp_path).read([TEXTS[0], "wide"])


def test_a_bounded_number_of_chunks_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_cache, "OPEN_CHUNKS", 3)
    cache = fill(tmp_path, TEXTS, chunk=2)
    order = random.Random(0).sample(TEXTS, len(TEXTS))
    for _ in range(3):
        check(cache, order)
        assert len(cache._open) == 3
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert len({line.split()[-1] for line in maps.read_text().splitlines() if str(tmp_path) in line}) <= 3


def test_a_chunk_that_is_written_again_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may encode the same prompts at the same time: the index stays as it is."""
    cache = fill(tmp_path, TEXTS)
    check(cache, TEXTS)
    before = {one.name: one.stat().st_ino for one in tmp_path.glob("*.safetensors")}
    fill(tmp_path, TEXTS)
    assert all(one.stat().st_ino != before[one.name] for one in tmp_path.glob("*.safetensors"))
    monkeypatch.setattr(index.PromptIndex, "renew", None)
    check(cache, TEXTS)
    check(PromptCache(tmp_path), TEXTS)
    assert remembered(tmp_path) == len(TEXTS)


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
    for one in threads:
        one.start()
    for one in threads:
        one.join()
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
from test_prompt_index import condition_of
from dipp_toolkit.prompts.cache import PromptCache

folder, start, ready = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
cache = PromptCache(folder)
ready.touch()
while not (ready.parent / "go").exists():
    pass
for k in range(start, start + 60):
    prompts = [f"shared {{k - start}}", f"own {{k}}"]
    for one in cache.missing(prompts[:1]):
        cache.add(condition_of([one]))
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
    while not all(one.exists() for one in ready):
        assert all(one.poll() is None for one in writers)
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
    assert [one.wait() for one in writers] == [0, 0, 0]
    written = [f"own {1000 * k + j}" for k in range(3) for j in range(60)] + [f"shared {j}" for j in range(60)]
    cache = PromptCache(folder)
    check(cache, written)
    assert intact(folder) and remembered(folder) == len(written) == len(list(folder.glob("*.safetensors")))
    assert not list(folder.glob(".*"))


def killed_at(call: int, work: Callable[..., Any]) -> Callable[..., object]:
    """A stand-in for a function that works until a call in which the process is killed."""
    calls = []

    def standing_in(*given: object) -> object:
        calls.append(given)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*given)

    return standing_in


@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_process_killed_between_a_chunk_and_its_index(tmp_path: Path, call: int) -> None:
    child = os.fork()
    if child == 0:
        index.PromptIndex._note = killed_at(call, index.PromptIndex._note)  # type: ignore[method-assign]
        fill(tmp_path, TEXTS)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert len(list(tmp_path.glob("*.safetensors"))) == call
    cache = PromptCache(tmp_path)
    check(cache, TEXTS[: 8 * call])
    assert cache.missing(TEXTS) == TEXTS[8 * call :] and intact(tmp_path) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("call", [1, 3, 5])
def test_a_process_killed_while_it_makes_the_index(tmp_path: Path, call: int) -> None:
    texts = [f"prompt {k}" for k in range(30_000)]
    fill(tmp_path, texts, 5000)
    (tmp_path / NAME).unlink()
    child = os.fork()
    if child == 0:
        index.open_chunk = killed_at(call, index.open_chunk)
        PromptCache(tmp_path)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert PromptCache(tmp_path).missing(texts) == []
    assert intact(tmp_path) and remembered(tmp_path) == len(texts)


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_whole_chunks(tmp_path: Path) -> None:
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
        old = time.time() - 2 * prompt_chunks.ABANDONED
        for left in folder.glob(".*"):
            os.utime(left, (old, old))
    prompt_chunks.remove_abandoned(folder)
    assert not list(folder.glob(".*"))
