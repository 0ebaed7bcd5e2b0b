"""Prompts that are mapped and not held: the same prompts, ids and errors as those of a list, whatever the format."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipp_toolkit import RequestError, load_prompts
from dipp_toolkit.prompts import dataset
from dipp_toolkit.prompts.dataset import PromptList, PromptTable
from dipp_toolkit.prompts.files import read_prompt_file
from dipp_toolkit.prompts.subsets import part_of
from dipp_toolkit.protocols import Prompt, texts
from dipp_toolkit.utils.lazy_sequence import LazySequence

NASTY = [
    "a cat", "  spaced  ", "# no comment", 'quoted "dog"', "comma, tab\tand\nnew line", "é\u2028ü 漢字 🐈",
    "\ufeffmark", "a\rb", "", "   ", "x" * 5000, "a cat",
]  # fmt: skip


def few_are_many(patch: pytest.MonkeyPatch) -> None:
    """From here on nothing is held in memory."""
    patch.setattr(dataset, "HELD_PROMPTS", 0)


def written(path: Path, prompts: Sequence[str]) -> Path:
    """A file of prompts in the format of its ending."""
    rows = [{"id": f"i{k}", "prompt": text, "category": "ab"[k % 2]} for k, text in enumerate(prompts)]
    if path.suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif path.suffix in (".csv", ".tsv"):
        delimiter = "," if path.suffix == ".csv" else "\t"
        buffer = io.StringIO(newline="")
        table = csv.DictWriter(buffer, list(rows[0]), delimiter=delimiter)
        table.writeheader()
        table.writerows(rows)
        path.write_bytes(b"\xef\xbb\xbf" + buffer.getvalue().encode())
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("\r\n".join(prompts), encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "jsonl", "parquet"])
def test_what_is_mapped_is_what_would_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow.parquet")
    prompts = [text for text in NASTY if kind != "tsv" or not {"\t", "\n", "\r", '"'} & set(text)]
    path = written(tmp_path / f"p.{kind}", prompts)
    held = read_prompt_file(path).prompts
    few_are_many(monkeypatch)
    lazy = read_prompt_file(path).prompts
    assert isinstance(held, list) and isinstance(lazy, PromptTable)
    assert list(lazy) == held and len(held) >= 5
    assert [lazy[index] for index in reversed(range(len(held)))] == held[::-1]
    assert lazy[2:5] == held[2:5] and lazy[-1] == held[-1]
    assert texts(PromptList("p", lazy)) == texts(PromptList("p", held))


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(st.sampled_from('a,"\n\r\t {}[]:1#'), max_size=60).map(lambda text: ("prompt,id\n" + text).encode()),
    ),
    st.sampled_from(["txt", "tsv", "csv", "jsonl"]),
)
def test_any_bytes_are_the_same_prompts_or_the_same_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"rows.{kind}"
    path.write_bytes(content)

    def outcome() -> list[Prompt] | str:
        try:
            prompts = read_prompt_file(path).prompts
            return [prompts[index] for index in range(len(prompts))]
        except RequestError as error:
            return str(error)

    held = outcome()
    with pytest.MonkeyPatch.context() as patch:
        few_are_many(patch)
        assert outcome() == held


def test_sets_are_held_while_they_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "p.txt", [f"prompt {k}" for k in range(20)])
    for name, most, lazy in (
        ("HELD_PROMPTS", 20, False),
        ("HELD_PROMPTS", 19, True),
        ("HELD_CHARACTERS", 170, False),
        ("HELD_CHARACTERS", 169, True),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(dataset, name, most)
            assert isinstance(read_prompt_file(path).prompts, PromptTable) is lazy, (name, most)


def test_errors_come_when_the_set_is_loaded_and_name_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_are_many(monkeypatch)
    good = "\n".join(json.dumps({"prompt": f"p{k}"}) for k in range(3000))
    for content, sentence in (
        (good + '\n{"prompt": 3}', "row 3001: 'prompt' is 3"),
        (good + '\n{"text2": 3}', "row 3001 has the fields text2"),
        (good + "\n{", "line 3001, is not valid JSON"),
        (good + '\n{"prompt": "\\ud800"}', "the prompt with the id '3001' contains half of a surrogate pair"),
    ):
        (tmp_path / "p.jsonl").write_text(content)
        with pytest.raises(RequestError, match=sentence):
            load_prompts(str(tmp_path / "p.jsonl"))
    (tmp_path / "p.txt").write_bytes(good.encode() + b"\n\xff")
    with pytest.raises(RequestError, match="not UTF-8"):
        load_prompts(str(tmp_path / "p.txt"))
    (tmp_path / "p.txt").write_bytes(good.encode() + b"\na\0b")
    with pytest.raises(RequestError, match="is binary"):
        load_prompts(str(tmp_path / "p.txt"))


@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl"])
def test_a_file_that_is_changed_changes_no_set_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    few_are_many(monkeypatch)
    path = written(tmp_path / f"p.{kind}", ["a cat", "a dog", "a sea"])
    lazy = load_prompts(str(path)).prompts
    content = path.read_bytes()
    with path.open("ab") as file:
        file.write(b"\nsomething more")
    assert [prompt.text for prompt in lazy] == ["a cat", "a dog", "a sea"]
    path.write_bytes(content.replace(b"dog", b"god"))
    assert (lazy[0].text, lazy[1].text, lazy[2].text) == ("a cat", "a dog", "a sea")
    assert load_prompts(str(path)).prompts[1].text == "a god"
    path.write_bytes(b"")
    assert [prompt.text for prompt in lazy] == ["a cat", "a dog", "a sea"]


def test_a_file_that_is_exchanged_or_removed_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_are_many(monkeypatch)
    path = written(tmp_path / "p.txt", ["a cat", "a dog"])
    lazy = load_prompts(str(path))
    written(tmp_path / "other.txt", ["a sea"]).replace(path)
    path.unlink()
    assert list(texts(lazy)) == ["a cat", "a dog"]


def test_a_pipe_is_read_once_and_a_device_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for few in (False, True):
        if few:
            few_are_many(monkeypatch)
        writer = threading.Thread(target=lambda: (tmp_path / "pipe.txt").write_text("a cat\na dog\n"))
        writer.start()
        assert list(texts(load_prompts(str(tmp_path / "pipe.txt")))) == ["a cat", "a dog"]
        writer.join()
    with pytest.raises(RequestError, match="is a device"):
        load_prompts("/dev/zero")


def test_parts_of_what_is_mapped_are_those_of_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "p.jsonl", [f"prompt {k}" for k in range(300)])
    parts = ["?count=50", "?count=299&seed=2", "?category=B", "?category=a&count=20", "?category=a,b&count=7"]
    held = [load_prompts(f"{path}{part}") for part in parts]
    few_are_many(monkeypatch)
    for part, expected in zip(parts, held, strict=True):
        lazy = load_prompts(f"{path}{part}")
        assert isinstance(lazy.prompts, LazySequence) and lazy.name == expected.name
        assert list(lazy.prompts) == expected.prompts and lazy.prompts[3] == expected.prompts[3]
    with pytest.raises(RequestError, match="no category named 'c'"):
        load_prompts(f"{path}?category=c")
    assert isinstance(load_prompts(f"{path}?count=1").prompts, LazySequence)
    monkeypatch.setattr(dataset, "HELD_PROMPTS", 50)
    assert isinstance(load_prompts(f"{path}?count=50").prompts, list)


def draw(seed: int, prompt: Prompt) -> bytes:
    return hashlib.sha256(f"{seed}\0{prompt.id}\0{prompt.text}".encode()).digest()


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12"), st.just("")), min_size=1),
    st.integers(1, 40),
    st.integers(0, 3),
)
def test_a_sample_is_that_of_sorting_all_draws(rows: list[tuple[str, str, str]], count: int, seed: int) -> None:
    """Prompts that are there several times have equal draws; then the first of them are taken."""
    prompts = [Prompt(*row) for row in rows]
    ranked = sorted(range(len(prompts)), key=lambda index: (draw(seed, prompts[index]), index))
    expected = [prompts[index] for index in sorted(ranked[:count])]
    assert list(part_of(PromptList("s", prompts), count=count, seed=seed).prompts) == expected


def test_of_categories_that_differ_in_case_the_last_new_one_is_meant() -> None:
    prompts = [Prompt(str(k), "", name) for k, name in enumerate(["A", "a", "A", "a", "b"])]
    assert [prompt.text for prompt in part_of(PromptList("s", prompts), category="A").prompts] == ["1", "3"]


MEMORY = """
import sys
from dipp_toolkit import load_prompts

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))

small, large = sys.argv[1:]
load_prompts(f"{small}?count=2")
import datasets, pyarrow.ipc  # what grows is meant, and not the library
before = anonymous()
whole, part = load_prompts(large), load_prompts(f"{large}?count=100000")
assert len(whole.prompts) == 200_000 and len(part.prompts) == 100_000
assert part.prompts[50_000].text.startswith("a photo")
pyarrow.default_memory_pool().release_unused()  # what is kept to be used again, however many prompts there are
print(anonymous() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_two_hundred_thousand_prompts_take_next_to_no_memory(tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("a\nb\nc")
    path = tmp_path / "many.txt"
    path.write_text("\n".join(f"a photo of number {k} on a mat in a house by the sea" for k in range(200_000)))
    words = [sys.executable, "-c", MEMORY, str(tmp_path / "few.txt"), str(path)]
    folder = Path(__file__).parents[2]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 12 * 1024  # KiB; as lists they take more than 60 MiB
