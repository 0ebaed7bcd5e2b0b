"""Prompt sets: files in every published format, parts of sets, published ones."""

from __future__ import annotations

import hashlib
import io
import json
import urllib.request
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipp_prompts import published
from dipp_toolkit import RequestError, load_prompts
from dipp_toolkit.models.files.fetching import NotHere, without_fetching
from dipp_toolkit.prompts.dataset import PromptList
from dipp_toolkit.prompts.files import read_prompt_file
from dipp_toolkit.prompts.subsets import part_of
from dipp_toolkit.protocols import Prompt, texts

SHARED = Path(__file__).parents[3] / "shared" / "prompts"
CONTENTS = {
    "a.txt": "# a comment\na cat\n\n  a \"dog\"  \n",
    "a.tsv": 'Prompt\tCategory\tNote\na cat\tpets\tx\na "dog"\tpets\t"unclosed\n',
    "a.csv": 'id,Text,STYLE\nx1,a cat,pets\nx2,"a ""dog""",pets\n',
    "a.json": json.dumps([{"id": 7, "prompt": "a cat"}, {"id": 8, "prompt": 'a "dog"'}]),
    "b.json": json.dumps(["a cat", 'a "dog"']),
    "c.json": json.dumps({"photo": ["a cat"], "anime": ['a "dog"']}),
    "a.jsonl": '{"tag": "one", "include": [], "prompt": "a cat"}\n\n{"tag": "two", "prompt": "a \\"dog\\""}\n',
    "b.jsonl": '"a cat"\n"a \\"dog\\""\n',
}  # fmt: skip


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_format_gives_the_same_prompts(tmp_path: Path, name: str, mark: str) -> None:
    (tmp_path / name).write_text(mark + CONTENTS[name], encoding="utf-8")
    prompts = load_prompts(str(tmp_path / name))
    assert texts(prompts) == ["a cat", 'a "dog"']
    assert len({prompt.id for prompt in prompts.prompts}) == 2 and all(prompt.id for prompt in prompts.prompts)


def test_ids_and_categories_are_kept(tmp_path: Path) -> None:
    for name, expected in {
        "a.csv": [("x1", "pets"), ("x2", "pets")],
        "a.json": [("7", ""), ("8", "")],
        "c.json": [("photo-1", "photo"), ("anime-1", "anime")],
        "a.jsonl": [("1", "one"), ("2", "two")],
    }.items():
        (tmp_path / name).write_text(CONTENTS[name])
        assert [(prompt.id, prompt.category) for prompt in load_prompts(str(tmp_path / name)).prompts] == expected


def test_coco_captions_are_the_first_of_each_image(tmp_path: Path) -> None:
    annotations = [
        {"image_id": 9, "id": 5, "caption": "later"},
        {"image_id": 9, "id": 3, "caption": "first\n of nine "},
        {"image_id": 2, "id": 8, "caption": "of two"},
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"images": [], "annotations": annotations}))
    prompts = load_prompts(f"coco-2017?path={tmp_path / 'captions.json'}")
    assert [(prompt.id, prompt.text) for prompt in prompts.prompts] == [("2", "of two"), ("9", "first of nine")]
    assert prompts.name == "coco-2017"


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"caption": ["a cat", "a dog"], "image": [b"1", b"2"], "Category": ["x", "y"]})
    parquet.write_table(table, tmp_path / "p.parquet")
    prompts = load_prompts(str(tmp_path / "p.parquet"))
    assert [(prompt.text, prompt.id, prompt.category) for prompt in prompts.prompts] == [
        ("a cat", "1", "x"),
        ("a dog", "2", "y"),
    ]
    (tmp_path / "q.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(RequestError, match="not a readable Parquet file"):
        load_prompts(str(tmp_path / "q.parquet"))
    parquet.write_table(pyarrow.table({"url": ["u"]}), tmp_path / "r.parquet")
    with pytest.raises(RequestError, match="fields url"):
        load_prompts(str(tmp_path / "r.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.tsv", b"Name\tNote\nx\ty\n", "has the fields Name, Note"),
        ("a.json", b"{", "is not valid JSON"),
        ("a.json", b'{"prompts": 3}', "not a list of prompts"),
        ("a.json", b"[3]", "has the fields none"),
        ("a.json", b'[{"prompt": 3}]', "expected a text"),
        ("a.json", b'{"annotations": [{"caption": "x"}]}', "lacks a number"),
        ("a.json", b'{"annotations": [{"caption": "x", "id": 1, "image_id": [2]}]}', "lacks a number"),
        ("a.json", b"[" * 100_000, "not valid JSON"),
        ("a.jsonl", b"[" * 100_000, "not valid JSON"),
        ("a.jsonl", b"9" * 5000, "not valid JSON"),
        ("a.jsonl", b'{"prompt": "x"}\n{', "line 2, is not valid JSON"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.txt", b"a\0b", "is binary"),
        ("a.txt", b"# only\n\n", "holds no prompt"),
        ("a.json", b"[]", "holds no prompt"),
        ("a.csv", b"", "holds no prompt"),
    ],
)
def test_files_that_hold_no_prompts_are_sentences(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match=sentence):
        load_prompts(str(tmp_path / name))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60), st.sampled_from(["txt", "tsv", "csv", "json", "jsonl", "parquet"]))
def test_any_bytes_are_prompts_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz.{kind}"
    path.write_bytes(content)
    try:
        assert all(prompt.text.strip() for prompt in read_prompt_file(path).prompts)
    except RequestError as error:
        assert str(path) in str(error)


LIST = PromptList("set", [Prompt(f"prompt {k}", str(k), "ab"[k % 2]) for k in range(200)])


def test_samples_are_seeded_nested_and_in_order() -> None:
    small, large = part_of(LIST, count=50), part_of(LIST, count=100)
    assert set(texts(small)) < set(texts(large)) and len(small.prompts) == 50
    numbers = [int(prompt.id) for prompt in large.prompts]
    assert numbers == sorted(numbers)
    assert texts(part_of(LIST, count=50)) == texts(small) != texts(part_of(LIST, count=50, seed=1))
    # The sample is a function of seed, id and text: these are the same on every machine, for ever.
    assert [prompt.id for prompt in part_of(LIST, count=4).prompts] == ["3", "8", "64", "122"]
    assert part_of(LIST, count=500) is LIST and part_of(LIST) is LIST


def test_categories_and_parts_in_the_name(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        "\n".join(json.dumps({"prompt": prompt.text, "category": prompt.category}) for prompt in LIST.prompts)
    )
    prompts = load_prompts(f"{path}?category=B&count=10&seed=3")
    assert {prompt.category for prompt in prompts.prompts} == {"b"} and len(prompts.prompts) == 10
    assert prompts.name == "p.jsonl?category=B&count=10&seed=3"
    assert texts(prompts) == texts(load_prompts(str(path), category="b", count=10, seed=3))
    assert len(load_prompts("emoji-heldout?category=red,blue").prompts) == 88
    for name, sentence in (
        (f"{path}?category=c", "no category named 'c'"),
        (f"{path}?colour=1", "named 'colour'"),
        (f"{path}?count=0", "whole number from 1"),
        (f"{path}?count=x", "whole number from 1"),
        (f"{path}?seed=-1&count=2", "whole number from 0"),
        (f"{path}?count", "expected NAME[?]KEY=VALUE"),
        (f"{path}?count=1&count=2", "expected NAME[?]KEY=VALUE"),
        ("emoji-heldot?count=2", "Did you mean 'emoji-heldout'"),
        ("parti?pth=x", "Did you mean 'path'"),
        ("parti?revision=main", "takes no revision"),
        ("emoji-heldout?path=x", "no such option"),
    ):
        with pytest.raises(RequestError, match=sentence):
            load_prompts(name)
    for count in (0, -5):
        with pytest.raises(RequestError, match="whole number from 1"):
            load_prompts(str(path), count=count)
    (tmp_path / "odd?name.txt").write_text("a cat")
    assert texts(load_prompts(str(tmp_path / "odd?name.txt"))) == ["a cat"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real prompt files are not here")
def test_the_real_files_have_the_published_counts() -> None:
    for file, name, count, categories in (
        ("parti.tsv", "parti", 1632, 12),
        ("geneval.jsonl", "geneval", 553, 6),
        ("imagereward-benchmark.json", "imagereward-benchmark", 100, 1),
        ("pickscore-test.txt", "pickapic-test", 2048, 1),
    ):
        prompts = load_prompts(str(SHARED / file))
        assert len(prompts.prompts) == count == published.SETS[name].count
        assert len({prompt.id for prompt in prompts.prompts}) == count
        assert len({prompt.category for prompt in prompts.prompts}) == categories
        assert len(load_prompts(f"{name}?path={SHARED / file}&count=7").prompts) == 7
        # What is fetched from the pinned commit is byte for byte the file that was handed out.
        assert hashlib.sha256((SHARED / file).read_bytes()).hexdigest() == published.SETS[name].digest


def test_fetched_once_checked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, requests = b"a cat\na dog\n", []

    def opened(address: str, timeout: float) -> io.BytesIO:
        requests.append(address)
        return io.BytesIO(content)

    monkeypatch.setenv("DIPP_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", opened)
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(published.SETS, "pickapic-test", published.Published(2, "https://x/test.txt", digest))
    assert texts(load_prompts("pickapic-test")) == texts(load_prompts("pickapic-test")) == ["a cat", "a dog"]
    assert requests == ["https://x/test.txt"]
    monkeypatch.setitem(published.SETS, "pickapic-test", published.Published(2, "https://x/test.txt", "0" * 64))
    with pytest.raises(RequestError, match="not the file that was published"):
        load_prompts("pickapic-test")
    assert not list(tmp_path.rglob("*.partial"))
    monkeypatch.setitem(published.SETS, "pickapic-test", published.Published(3, "https://x/test.txt", digest))
    with pytest.raises(RequestError, match="holds 2 prompts; 3 were published"):
        load_prompts("pickapic-test")


def test_a_member_of_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        annotations = [{"image_id": 1, "id": 1, "caption": "a cat"}]
        archive.writestr("annotations/captions.json", json.dumps({"annotations": annotations}))
    content = packed.getvalue()
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda address, timeout: io.BytesIO(content))
    digest = hashlib.sha256(content).hexdigest()
    archive_set = published.Published(1, "http://x/a.zip", digest, member="annotations/captions.json")
    monkeypatch.setitem(published.SETS, "coco-2017", archive_set)
    assert texts(load_prompts("coco-2017")) == ["a cat"]
    assert [path.name for path in tmp_path.rglob("*.*")] == ["captions.json"]
    small = published.Published(1, "http://x/a.zip", digest, member="annotations/captions.json", most_bytes=10)
    monkeypatch.setitem(published.SETS, "coco-2017", small)
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(published, "CHUNK", 10)
    with pytest.raises(RequestError, match="not the file that was published"):
        load_prompts("coco-2017")


def test_without_network_or_digest_a_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(address: str, timeout: float) -> io.BytesIO:
        raise OSError("no route")

    monkeypatch.setenv("DIPP_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refused)
    with pytest.raises(RequestError, match=r"no route.*parti\?path=FILE"):
        load_prompts("parti")
    with pytest.raises(RequestError, match=r"no route.*coco-2017\?path=FILE"):
        load_prompts("coco-2017")
    with pytest.raises(RequestError, match=r"hpdv2\?revision=COMMIT.*hpdv2\?path=FILE"):
        load_prompts("hpdv2")


def test_the_hub_is_asked_for_the_pinned_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = []

    def download(repo: str, file: str, *, repo_type: str, revision: str) -> str:
        requests.append((repo, repo_type, revision))
        if repo == "zhwang/HPDv2":
            (tmp_path / "h.json").write_text(json.dumps([f"{file} {k}" for k in range(800)]))
            return str(tmp_path / "h.json")
        (tmp_path / "d.csv").write_text("Prompts,Category\n" + "".join(f'"a, {k}",Colors\n' for k in range(200)))
        return str(tmp_path / "d.csv")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    prompts = load_prompts("drawbench")
    assert prompts.prompts[1] == Prompt("a, 1", "2", "Colors") and len(prompts.prompts) == 200
    assert requests == [("sayakpaul/drawbench", "dataset", "ad794cba698c253ffdb6d18eff3fc87b004c1135")]
    styles = load_prompts("hpdv2?revision=abc&category=photo")
    assert len(styles.prompts) == 800 and styles.prompts[0].id == "photo-1" and requests[-1][2] == "abc"

    def refused(*_: object, **__: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)
    with pytest.raises(RequestError, match=r"offline.*drawbench\?path=FILE"):
        load_prompts("drawbench")


def test_any_dataset_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    requests = []

    def loaded(*given: object, **named: object) -> datasets.Dataset:
        requests.append((given, named))
        return datasets.Dataset.from_dict({"caption": ["a cat", "a dog"], "tag": ["x", "y"]})

    monkeypatch.setattr(datasets, "load_dataset", loaded)
    prompts = load_prompts("hub?dataset=somebody/prompts&split=test&revision=abc&category=y")
    assert list(prompts.prompts) == [Prompt("a dog", "2", "y")] and prompts.name == "somebody/prompts?category=y"
    assert requests == [(("somebody/prompts", None), {"split": "test", "revision": "abc"})]
    with without_fetching() as missing, pytest.raises(NotHere, match=r"split train of huggingface\.co/datasets/a/b"):
        load_prompts("hub?dataset=a/b")
    assert list(missing) == ["the split train of huggingface.co/datasets/a/b"]
    with pytest.raises(RequestError, match="dataset"):
        load_prompts("hub")


def test_a_dataset_that_is_not_here_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(RequestError, match="Cannot load the split train of the dataset nobody/nothing-at-all: "):
        load_prompts("hub?dataset=nobody/nothing-at-all")
