"""Many prompts lie in a file without a name: what was written is there, and nothing is left."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import pytest

from dipp_toolkit import load_prompts
from dipp_toolkit.errors import PluginError, RequestError
from dipp_toolkit.prompts import dataset
from dipp_toolkit.prompts.dataset import BATCH, PromptTable, held_or_mapped
from dipp_toolkit.protocols import Prompt, texts


@pytest.fixture(autouse=True)
def _nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "HELD_PROMPTS", 0)


def some(count: int) -> list[Prompt]:
    return [Prompt(f"text {k}", str(k), "ab"[k % 2], f"{k}.png") for k in range(count)]


@pytest.mark.parametrize("count", [0, 1, BATCH, BATCH + 1, 3 * BATCH + 5])
def test_prompts_come_back_in_order(count: int) -> None:
    prompts = some(count)
    mapped = held_or_mapped(iter(prompts))
    assert isinstance(mapped, PromptTable) == (count > 0)
    assert list(mapped) == prompts and len(mapped) == count
    assert list(mapped[::-3]) == prompts[::-3] and list(mapped[5:BATCH]) == prompts[5:BATCH]


def test_many_prompts_are_mapped_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path))
    files = len(list(Path("/dev/fd").iterdir()))
    mapped = held_or_mapped(some(5 * BATCH))
    assert mapped[4 * BATCH].id == str(4 * BATCH) and len(list(Path("/dev/fd").iterdir())) <= files + 1
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"] and list((tmp_path / "scratch").iterdir()) == []
    assert f"{tmp_path}/scratch" in Path("/proc/self/maps").read_text()
    del mapped
    gc.collect()
    assert f"{tmp_path}/scratch" not in Path("/proc/self/maps").read_text()


def test_files_go_elsewhere_where_the_cache_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "file"))
    assert list(held_or_mapped(some(3))) == some(3)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115 -- what is tested closes it
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
    with pytest.raises(RequestError, match=r"temporary file of prompts: No space left.*DIPP_CACHE"):
        held_or_mapped(some(2 * BATCH))


def test_a_dataset_is_a_prompt_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = {"Caption": [" a cat", "", "a dog "], "image_id": [7, 8, 9], "style": ["x", "y", None], "pixels": [b""] * 3}
    whole = datasets.Dataset.from_dict(rows)
    expected = [Prompt("a cat", "7", "x"), Prompt("a dog", "9")]
    assert load_prompts(whole).prompts == load_prompts(whole.to_iterable_dataset()).prompts == expected
    monkeypatch.setattr(dataset, "HELD_PROMPTS", 10)
    assert load_prompts(whole, category="X").prompts == expected[:1] == load_prompts(whole.select([0])).prompts
    for other, sentence in (
        (whole.remove_columns("Caption"), "dataset from Python has no prompts: row 1 has the fields image_id, style"),
        (whole.select([]), "dataset from Python holds no prompts"),
        (whole.remove_columns("Caption").rename_column("image_id", "text"), "row 1: 'text' is 7; expected a text"),
    ):
        with pytest.raises(RequestError, match=sentence):
            load_prompts(other)
    with pytest.raises(PluginError, match=r"is a DatasetDict; expected a list of texts, .* a datasets\.Dataset"):
        load_prompts(datasets.DatasetDict(train=whole))  # type: ignore[arg-type]


def test_a_file_of_python_may_name_a_dataset(tmp_path: Path) -> None:
    source = "import datasets\nROWS = datasets.Dataset.from_dict({'prompt': ['a cat', 'a dog']})\n"
    (tmp_path / "mine.py").write_text(source)
    prompts = load_prompts(f"{tmp_path / 'mine.py'}:ROWS")
    assert list(texts(prompts)) == ["a cat", "a dog"] and prompts.name == "ROWS"
