"""Votes go out as a dataset and come back, and nothing is lost or overwritten on the way."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image

from dipp_cli.actions import vote_exchange
from dipp_toolkit.errors import RequestError
from dipp_toolkit.preferences.dataset_export import APART, TRAIN, export_comparisons, export_votes
from dipp_toolkit.preferences.dataset_import import import_votes
from dipp_toolkit.preferences.loading import load_comparisons, read_preferences
from dipp_toolkit.preferences.pair import Comparison
from dipp_toolkit.preferences.vote_file import NewCandidate, VoteFile

VOTES = [
    # voter, two images, choice, whether it is a repetition
    ("ann", 1, 2, "first", False),
    ("ben", 2, 1, "first", False),
    ("ann", 2, 3, "equal", False),
    ("ann", 1, 2, "second", True),
    ("ben", 5, 4, "second", False),
    ("ann", 2, 3, "equal", True),
    ("Zoë, 3rd", 4, 5, "equal", False),
]


@pytest.fixture
def votes(tmp_path: Path) -> VoteFile:
    """Votes of every kind, on images of which two makers made one alike."""
    file = VoteFile.open(tmp_path / "votes", create=True)
    random = torch.Generator().manual_seed(0)
    alike = torch.rand(3, 8, 6, generator=random)
    file.add(
        [
            NewCandidate('a fox, or "two"', "one", alike, "animals"),
            NewCandidate('a fox, or "two"', "two", alike, "animals"),
            NewCandidate('a fox, or "two"', "two", torch.rand(3, 8, 8, generator=random), "animals"),
            NewCandidate("007", "one", alike),
            NewCandidate("007", "", torch.rand(3, 4, 4, generator=random)),
        ]
    )
    asked: dict[tuple[str, frozenset[int]], str] = {}
    for voter, first, second, choice, repeat in VOTES:
        pair = (voter, frozenset((first, second)))
        showing = file.show(voter, first, second, asked[pair] if repeat else "")
        asked.setdefault(pair, showing.id)
        file.vote(showing.id, choice)
    return file


def told(comparisons: list[Comparison]) -> list[tuple[Any, ...]]:
    """All that comparisons say, whatever their images are numbered."""

    def image(one: Any) -> tuple[Any, ...]:
        return one.prompt, one.maker, one.category, one.picture.read().mul(255).round().int().tolist()

    return [(image(one.first), image(one.second), one.outcome, one.voter, one.repeat) for one in comparisons]


@pytest.mark.parametrize("layout", ["chosen", "pickapic"])
def test_what_goes_out_comes_back(votes: VoteFile, tmp_path: Path, layout: str) -> None:
    written = export_votes(votes.folder, tmp_path / "out", layout=layout)
    assert written.rows == {TRAIN: 3, APART: 4}
    read = load_comparisons(tmp_path / "out")
    assert told(read) == told(votes.comparisons())
    assert len({one.id for pair in read for one in (pair.first, pair.second)}) == 5
    import_votes(str(tmp_path / "out"), tmp_path / "back")
    assert told(load_comparisons(tmp_path / "back")) == told(votes.comparisons())
    with VoteFile.open(tmp_path / "back") as back:
        assert len(back.candidates()) == 5


def test_plain_python_reads_it(votes: VoteFile, tmp_path: Path) -> None:
    export_votes(votes.folder, tmp_path / "out")
    program = (
        "import datasets, json, sys; loaded = datasets.load_dataset(sys.argv[1]); row = loaded['train'][0]; "
        "print(json.dumps([{name: len(split) for name, split in loaded.items()}, row['prompt'], row['chosen'].mode, "
        "row['rejected'].size, row['voter'], list(row)]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    splits, prompt, mode, size, voter, columns = json.loads(answer.stdout)
    assert splits == {TRAIN: 3, APART: 4}
    assert (prompt, mode, size, voter) == ('a fox, or "two"', "RGB", [6, 8], "ann")
    assert columns[:3] == ["prompt", "chosen", "rejected"]


def test_a_script_of_diffusers_finds_its_columns(votes: VoteFile, tmp_path: Path) -> None:
    export_votes(votes.folder, tmp_path / "out", layout="pickapic")
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train")[:]
    images = [[Image.open(io.BytesIO(content)) for content in rows[column]] for column in ("jpg_0", "jpg_1")]
    assert [image.size for image in images[0]] == [(6, 8), (6, 8), (4, 4)]
    assert rows["label_0"] == [1.0, 1.0, 0.0]
    assert rows["caption"][2] == "007"


def test_the_card_names_the_files_and_says_what_stands_in_them(votes: VoteFile, tmp_path: Path) -> None:
    export_votes(votes.folder, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "7 votes of 3 voters on images of 2 prompts" in card
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert files[0] == "README.md" and len(files) == 3
    assert [name.rpartition("-")[0] for name in files[1:]] == [
        "data/ties_and_repeats-00000-of-00001",
        "data/train-00000-of-00001",
    ]
    assert all(f"path: {name}" in card for name in files[1:])


def test_the_library_mixes_no_two_datasets_of_one_name(votes: VoteFile, tmp_path: Path) -> None:
    """`load_dataset` finds its cached copy by the folder's name and its card."""
    swapped = [replace(one, first=one.second, second=one.first) for one in votes.comparisons()]  # as many bytes
    for folder, comparisons in (("one", votes.comparisons()), ("two", swapped)):
        export_comparisons(comparisons, tmp_path / folder / "out")
        rows = datasets.load_dataset(str(tmp_path / folder / "out"), split="train")
        assert rows["chosen_maker"] == [one.winner.maker for one in comparisons if one.winner and not one.repeat]
    assert told(load_comparisons(tmp_path / "one" / "out")) == told(votes.comparisons())
    assert told(load_comparisons(tmp_path / "two" / "out")) == told(swapped)


def test_a_folder_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    for level in (10, 20):
        rows = {"prompt": ["a"], "chosen": [_png(level)], "rejected": [_png(3)]}
        datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "data" / "rows.parquet")
        (comparison,) = load_comparisons(tmp_path / "data")
        assert float(comparison.first.picture.read()[0, 0, 0]) == pytest.approx(level / 255)


def test_ties_alone(votes: VoteFile, tmp_path: Path) -> None:
    ties = [one for one in votes.comparisons() if one.winner is None]
    assert export_comparisons(ties, tmp_path / "out").rows == {APART: 3}
    assert told(load_comparisons(tmp_path / "out")) == told(ties)
    assert len(datasets.load_dataset(str(tmp_path / "out"), split=APART)) == 3


def test_what_is_there_is_not_overwritten(votes: VoteFile, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export_votes(votes.folder, tmp_path / "out")  # an empty folder is no loss
    before = (tmp_path / "out" / "README.md").read_bytes()
    with pytest.raises(RequestError, match="not empty; name one that is missing or empty"):
        export_votes(votes.folder, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_bytes() == before
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(RequestError, match="is a file"):
        export_votes(votes.folder, tmp_path / "file")
    with pytest.raises(RequestError, match="holds something else than votes"):
        import_votes(str(tmp_path / "out"), tmp_path)


def test_a_missing_image_leaves_nothing_half_written(votes: VoteFile, tmp_path: Path) -> None:
    votes.candidates()[2].picture.path.unlink()
    with pytest.raises(RequestError, match="There is no image"):
        export_votes(votes.folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["votes"]


def test_nobody_has_voted(tmp_path: Path) -> None:
    VoteFile.open(tmp_path / "votes", create=True).close()
    with pytest.raises(RequestError, match="Nobody has voted"):
        export_votes(tmp_path / "votes", tmp_path / "out")
    with pytest.raises(RequestError, match="no votes to export"):
        export_comparisons([], tmp_path / "out")
    with pytest.raises(RequestError, match=r"no layout named 'chossen'.*Did you mean 'chosen'"):
        export_comparisons([], tmp_path / "out", layout="chossen")


def test_an_import_can_be_run_again(votes: VoteFile, tmp_path: Path) -> None:
    export_votes(votes.folder, tmp_path / "out")
    first = import_votes(str(tmp_path / "out"), tmp_path / "back")
    again = import_votes(str(tmp_path / "out"), tmp_path / "back")
    assert (first.images, first.votes, first.known) == (5, 7, 0)
    assert (again.images, again.votes, again.known) == (0, 0, 7)
    with VoteFile.open(tmp_path / "back") as back:
        showing = back.show("cleo", 1, 3)
        back.vote(showing.id, "first")
    more = import_votes(str(tmp_path / "back"), votes.folder)
    assert (more.images, more.votes, more.known) == (0, 1, 7)


def test_two_imports_at_once_add_every_vote_once(
    votes: VoteFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_votes(votes.folder, tmp_path / "data")
    alone = VoteFile.all_or_none

    def after_another(file: VoteFile) -> Any:
        monkeypatch.setattr(VoteFile, "all_or_none", alone)
        import_votes(tmp_path / "data", tmp_path / "new")  # which is quicker, and ends first
        return alone(file)

    monkeypatch.setattr(VoteFile, "all_or_none", after_another)
    again = import_votes(tmp_path / "data", tmp_path / "new")
    assert (again.votes, again.known) == (0, len(VOTES))
    assert len(load_comparisons(tmp_path / "new")) == len(VOTES)


def test_an_import_that_fails_adds_no_vote(votes: VoteFile, tmp_path: Path) -> None:
    rows = {
        "prompt": ["a", "a"],
        "chosen": [_png(1), _png(2)],
        "rejected": [_png(3), b"\x89PNG\r\n\x1a\nnothing"],
    }
    path = tmp_path / "broken.parquet"
    datasets.Dataset.from_dict(rows).to_parquet(path)
    before = votes.comparisons()
    with pytest.raises(RequestError, match=r"'rejected' in row 2 of the dataset .*broken\.parquet"):
        import_votes(str(path), votes.folder)
    assert votes.comparisons() == before


def test_votes_without_a_voter_get_a_name(tmp_path: Path) -> None:
    rows = {"prompt": ["a"], "chosen": [_png(1)], "rejected": [_png(2)]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "theirs.parquet")
    import_votes(str(tmp_path / "theirs.parquet"), tmp_path / "votes")
    import_votes(str(tmp_path / "theirs.parquet"), tmp_path / "votes", voter="somebody")
    assert [one.voter for one in load_comparisons(tmp_path / "votes")] == ["theirs.parquet", "somebody"]
    datasets.Dataset.from_dict({**rows, "voter": ["a\x1b[2J"]}).to_parquet(tmp_path / "odd.parquet")
    with pytest.raises(RequestError, match="1 to 80 printable"):
        import_votes(str(tmp_path / "odd.parquet"), tmp_path / "votes")


def test_the_command_says_what_it_did(votes: VoteFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vote_exchange.export(votes.folder, tmp_path / "out", as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(tmp_path / "out"),
        "rows": {"train": 3, "ties_and_repeats": 4},
    }
    assert vote_exchange.import_(str(tmp_path / "out"), tmp_path / "back", as_json=False) == 0
    assert vote_exchange.import_(str(tmp_path / "out"), tmp_path / "back", as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'back'}  7 votes and 5 images added"
    assert lines[1] == f"{tmp_path / 'back'}  0 votes and 0 images added; 7 votes had been imported before"
    assert vote_exchange.export(votes.folder, tmp_path / "plain", as_json=False) == 0
    assert f'datasets.load_dataset("{tmp_path / "plain"}")' in capsys.readouterr().out


REWARD = "def bright(images, prompts):\n    return images.mean((1, 2, 3))\n"


def test_a_reward_says_that_columns_look_swapped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bright.py").write_text(REWARD, encoding="utf-8")
    reward = f"{tmp_path / 'bright.py'}:bright"
    dark, light = [_png(level) for level in range(20)], [_png(level) for level in range(200, 220)]
    prompts = [f"prompt {number}" for number in range(20)]
    swapped = datasets.Dataset.from_dict({"prompt": prompts, "chosen": dark, "rejected": light})
    swapped.to_parquet(tmp_path / "swapped.parquet")
    with pytest.raises(RequestError, match=r"may be swapped.* agrees with only 0 of 20 votes.*Nothing was imported"):
        vote_exchange.import_(str(tmp_path / "swapped.parquet"), tmp_path / "votes", as_json=False, reward=reward)
    assert not (tmp_path / "votes").exists()
    right = swapped.rename_columns({"chosen": "rejected", "rejected": "chosen"})  # what the sentence says
    right.to_parquet(tmp_path / "right.parquet")
    vote_exchange.import_(str(tmp_path / "right.parquet"), tmp_path / "votes", as_json=False, reward=reward)
    assert "agrees with 20 of 20 votes" in capsys.readouterr().err
    assert len(read_preferences(tmp_path / "votes").comparisons) == 20


def _png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def test_images_without_an_identity_are_not_those_of_the_other_split(votes: VoteFile, tmp_path: Path) -> None:
    export_votes(votes.folder, tmp_path / "data")
    splits = datasets.load_dataset(str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
    nothing = {"chosen_uid": None, "rejected_uid": None}
    one = {**splits[TRAIN][0], **nothing, "number": 0}
    other = {**splits[APART][0], **nothing, "number": 1}
    assert one["prompt"] == other["prompt"]
    makers = {"chosen_maker": "a", "rejected_maker": "b"}
    both = {
        key: datasets.Dataset.from_list([{**row, **makers}], features=splits[TRAIN].features)
        for key, row in ((TRAIN, one), (APART, other))
    }
    first, second = read_preferences(datasets.DatasetDict(both)).comparisons
    assert not first.pair & second.pair
