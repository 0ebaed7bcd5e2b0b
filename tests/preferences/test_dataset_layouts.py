"""Datasets of preferences as people publish them, and what is said of those that cannot be read."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dipp_toolkit.errors import RequestError
from dipp_toolkit.preferences.loading import load_comparisons, read_preferences
from dipp_toolkit.preferences.pair import Comparison, PictureFile


def png(level: int, size: int = 4) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def level(candidate: Any) -> int:
    return round(float(candidate.picture.read().mean()) * 255)


def told(comparisons: list[Comparison]) -> list[tuple[Any, ...]]:
    return [(one.first.prompt, level(one.first), level(one.second), one.outcome) for one in comparisons]


def ids(comparisons: list[Comparison]) -> list[tuple[int, int]]:
    return [(one.first.id, one.second.id) for one in comparisons]


def table(rows: dict[str, list[Any]], *images: str) -> datasets.Dataset:
    """A dataset whose named columns are the library's images."""
    made = datasets.Dataset.from_dict(rows)
    for column in images:
        made = made.cast_column(column, datasets.Image())
    return made


def test_columns_of_trl(tmp_path: Path) -> None:
    rows = {"prompt": ["a", "a", "b"], "chosen": [png(1), png(2), png(1)], "rejected": [png(2), png(3), png(4)]}
    dataset = table(rows, "chosen", "rejected")
    dataset.save_to_disk(tmp_path / "disk")
    datasets.DatasetDict({"train": dataset}).save_to_disk(tmp_path / "dict")
    dataset.to_parquet(tmp_path / "rows.parquet")
    expected = [("a", 1, 2, 1.0), ("a", 2, 3, 1.0), ("b", 1, 4, 1.0)]
    places = (dataset, tmp_path / "disk", tmp_path / "dict", str(tmp_path / "rows.parquet"))
    for place in places:
        comparisons = load_comparisons(place)
        assert told(comparisons) == expected
        # The image of two rows of one prompt is one; the same pixels for another prompt are another.
        assert ids(comparisons) == [(1, 2), (2, 3), (4, 5)]
        assert ids(load_comparisons(place)) == ids(comparisons)
        assert comparisons[0].first.picture.encoded() == png(1)


def test_a_part_and_a_stream(tmp_path: Path) -> None:
    rows = {"prompt": list("abcde"), "chosen": [png(1)] * 5, "rejected": [png(2)] * 5}
    table(rows, "chosen", "rejected").to_parquet(tmp_path / "rows.parquet")
    place = f"{tmp_path / 'rows.parquet'}?split=train[1:3]"
    for part in (place, f"{place}&stream=yes"):
        assert told(load_comparisons(part)) == [("b", 1, 2, 1.0), ("c", 1, 2, 1.0)]
    assert len(load_comparisons(f"{tmp_path / 'rows.parquet'}?split=train[3:]")) == 2


def test_columns_of_pick_a_pic(tmp_path: Path) -> None:
    rows = {
        "caption": ["a", "a", "a", "b", "b"],
        "jpg_0": [png(1), png(2), png(3), png(1), png(5)],
        "jpg_1": [png(2), png(3), png(1), png(4), png(6)],
        "label_0": [1.0, 0.0, 0.5, 1.0, 0.0],
        "label_1": [0.0, 1.0, 0.5, 0.0, 0.0],
        "has_label": [True, True, True, True, False],
        "are_different": [True] * 5,
        "image_0_uid": ["u1", "u2", "u3", "u1b", "u5"],
        "image_1_uid": ["u2", "u3", "u1", "u4", "u6"],
        "best_image_uid": ["u1", "u3", "", "u1b", ""],
        "model_0": ["x", "y", "x", "x", "x"],
        "model_1": ["y", "x", "x", "y", "y"],
        "user_id": [7, 7, 8, 9, 9],
    }
    table(rows).to_parquet(tmp_path / "rows.parquet")  # bytes, as published
    preferences = read_preferences(tmp_path / "rows.parquet")
    comparisons = preferences.comparisons
    assert preferences.layout == "Pick-a-Pic"
    assert told(comparisons) == [("a", 1, 2, 1.0), ("a", 2, 3, 0.0), ("a", 3, 1, 0.5), ("b", 1, 4, 1.0)]
    assert ids(comparisons) == [(1, 2), (2, 3), (3, 1), (4, 5)]
    assert [one.voter for one in comparisons] == ["7", "7", "8", "9"]
    assert (comparisons[1].first.maker, comparisons[1].second.maker) == ("y", "x")
    without = table({name: rows[name] for name in ("caption", "jpg_0", "jpg_1", "label_0")})  # all that diffusers reads
    assert [one.outcome for one in load_comparisons(without)] == [1.0, 0.0, 0.5, 1.0, 0.0]


def test_images_told_by_identities_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(png(1))
    (tmp_path / "two.png").write_bytes(png(2))
    rows = {
        "caption": ["a"], "jpg_0": ["one.png"], "jpg_1": ["two.png"], "label_0": [0], "image_0_uid": ["u1"],
        "image_1_uid": ["u2"],
    }  # fmt: skip
    table(rows).to_json(tmp_path / "rows.jsonl")
    (comparison,) = load_comparisons(tmp_path / "rows.jsonl")
    assert isinstance(comparison.first.picture, PictureFile)
    assert told([comparison]) == [("a", 1, 2, 0.0)]


def test_columns_of_hpd_v3(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in (1, 2, 3):
        (tmp_path / "images" / f"{number}.png").write_bytes(png(number))
    row = {
        "prompt": "a",
        "path1": "images/1.png",
        "path2": "images/2.png",
        "confidence": 0.9,
        "model1": "x",
        "model2": "y",
    }
    rows = [row | {"choice_dist": [12, 7]}, row | {"path2": "3.png", "choice_dist": None}]
    (tmp_path / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    comparisons = load_comparisons(tmp_path / "train.json")
    assert told(comparisons) == [("a", 1, 2, 1.0), ("a", 1, 3, 1.0)]
    assert ids(comparisons) == [(1, 2), (1, 3)]
    assert [(one.first.maker, one.second.maker) for one in comparisons] == [("x", "y"), ("x", "y")]


def test_columns_of_hpd_v2(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            (tmp_path / folder / f"{number}.png").write_bytes(png(number))
    names = ["0.png", "1.png", "2.png"]
    training = [{"prompt": "a", "file_path": names[:2], "human_preference": [0, 1]}]
    (tmp_path / "train.json").write_text(json.dumps(training), encoding="utf-8")
    assert told(load_comparisons(tmp_path / "train.json")) == [("a", 0, 1, 0.0)]
    ranks = [{"prompt": "a", "image_path": names, "rank": [2, 1, 2]}]
    (tmp_path / "test.json").write_text(json.dumps(ranks), encoding="utf-8")
    assert told(load_comparisons(tmp_path / "test.json")) == [("a", 0, 1, 0.0), ("a", 0, 2, 0.5), ("a", 1, 2, 1.0)]
    of_three = table({"prompt": ["a"], "images": [[png(1), png(2), png(3)]], "human_preference": [[0, 1, 0]]})
    assert told(load_comparisons(of_three)) == [("a", 1, 2, 0.0), ("a", 2, 3, 1.0)]


def test_columns_of_image_reward_db() -> None:
    rows = {
        "image": [png(1), png(2), png(7), png(3), png(8)],
        "prompt_id": ["p", "p", "q", "p", "q"],
        "prompt": ["a", "a", "b", "a", "b"],
        "classification": ["Animals", "Animals", "Food", "Animals", "Food"],
        "rank": [1, 3, 2, 1, 1],
    }
    comparisons = load_comparisons(table(rows, "image"))
    assert told(comparisons) == [("a", 1, 2, 1.0), ("a", 1, 3, 0.5), ("a", 2, 3, 0.0), ("b", 7, 8, 0.0)]
    assert comparisons[-1].first.category == "Food"


def test_tables_of_texts(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    (tmp_path / "rows.csv").write_text("prompt,path1,path2\n007,1.png,2.png\nNA,2.png,1.png\n", encoding="utf-8")
    assert told(load_comparisons(tmp_path / "rows.csv")) == [("007", 1, 2, 1.0), ("NA", 2, 1, 1.0)]
    (tmp_path / "rows.tsv").write_text("Prompt\tchosen\trejected\toutcome\na\t1.png\t2.png\t0.5\n", encoding="utf-8")
    assert told(load_comparisons(tmp_path / "rows.tsv")) == [("a", 1, 2, 0.5)]


def test_pixels_are_decoded_when_they_are_asked_for() -> None:
    rows = {"prompt": ["a"], "chosen": [png(1)], "rejected": [b"\x89PNG\r\n\x1a\nnothing"]}
    (comparison,) = load_comparisons(table(rows))
    assert level(comparison.first) == 1
    with pytest.raises(RequestError, match=r"'rejected' in row 1 of the dataset from Python .*not a readable image"):
        comparison.second.picture.read()


PAIR = {"prompt": ["a", "b"], "chosen": [png(1), png(2)], "rejected": [png(3), png(4)]}
PICK = {"caption": ["a"], "jpg_0": [png(1)], "jpg_1": [png(2)], "label_0": [1.0], "label_1": [0.0]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (PAIR | {"chosen": ["a good answer", "b"], "rejected": ["a bad one", "c"]}, "text 'a good answer'.*no such"),
        ({"prompt": [png(1)], "chosen": ["a"], "rejected": ["b"]}, "look swapped: 'prompt' holds images, 'chosen'"),
        ({"prompt": [png(1)], "chosen": [png(2)], "rejected": ["b"]}, "look swapped: 'prompt' holds images"),
        (PAIR | {"rejected": PAIR["chosen"]}, "the two images are the same in every row"),
        (PAIR | {"score_chosen": [0.1, 0.2], "score_rejected": [0.3, 0.4]}, "of 2 rows.*2 say the opposite.*swapped"),
        (PAIR | {"outcome": [1.0, 0.0]}, "row 2: 'outcome' is 0.0; expected 1 where"),
        (PAIR | {"prompt": ["a", None]}, "row 2: 'prompt' is None; expected a prompt"),
        (PAIR | {"prompt": [1, 2]}, "'prompt' holds other values.*expected texts in 'prompt'"),
        (PAIR | {"chosen": [png(1), None]}, "row 2: 'chosen' holds no image"),
        (PAIR | {"chosen": [1, 2]}, "'chosen' holds other values.*images in 'chosen' and 'rejected'"),
        (PAIR | {"repeat": ["no", "perhaps"]}, "row 2: 'repeat' is 'perhaps'; expected true or false"),
        (PICK | {"label_1": [1.0]}, "'label_0' is 1 and 'label_1' is 1, which contradict each other"),
        (PICK | {"label_0": [0.0]}, "'label_0' is 0 and 'label_1' is 0, which contradict each other"),
        (PICK | {"label_0": [0.7]}, "'label_0' is 0.7; expected 1 where the first image was preferred"),
        (PICK | {"has_label": [False]}, "nobody has voted on its rows"),
        (
            PICK | {"image_0_uid": ["x"], "image_1_uid": ["y"], "best_image_uid": ["y"]},
            "of 1 rows.*best_image_uid.*1 say the opposite",
        ),
        (
            {"prompt": ["a"], "chosen": [png(2)], "rejected": [png(1)], **PICK},
            "of 1 rows.*1 say the opposite of the image that is called preferred",
        ),
        ({"prompt": ["a"], "chosen_1": [png(1)], "rejected": [png(2)]}, r"also needs chosen \(is it 'chosen_1'\?\)"),
        ({"caption": ["a"], "label_0": [1], "image_0_url": ["http://x/1"]}, r"Pick-a-Pic.*also needs jpg_0, jpg_1\."),
        ({"question": ["a"], "answer": ["b"]}, "has the columns question, answer"),
        ({"prompt": ["a"], "path1": ["https://x/1.png"], "path2": ["https://x/2.png"]}, "address .*not fetched"),
        ({"prompt": ["a"], "image": [png(1)], "human_preference": [1]}, "'image' holds one image a row; expected"),
        ({"prompt": ["a"], "images": [[png(1)]], "rank": [[1]]}, "holds 1 image; expected two images or more"),
        ({"prompt": ["a"], "images": [[png(1), png(2)]], "rank": [[1]]}, "expected a list of 2 numbers"),
        ({"prompt": ["a"], "images": [[png(1), png(2)]], "human_preference": [[1, 1]]}, "1 for one image and 0 for"),
        ({"prompt": ["a"], "chosen": [[png(1)]], "rejected": [png(1)]}, "'chosen' holds a list a row; expected one"),
        (
            {"prompt": ["a", "b"], "prompt_id": ["p", "p"], "image": [png(1), png(2)], "rank": [1, 2]},
            "row 2: 'prompt' is 'b'; expected the prompt of row 1",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_read(rows: dict[str, list[Any]], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        load_comparisons(table(rows))


def test_some_copies_are_left_out_and_reported() -> None:
    preferences = read_preferences(table(PAIR | {"rejected": [png(1), png(4)]}))
    assert (len(preferences.comparisons), preferences.notices) == (
        1,
        ["Left out: 1 vote between two copies of one image."],
    )


def test_a_minority_that_contradicts_is_reported() -> None:
    rows = {name: values + values[:1] for name, values in PAIR.items()}
    preferences = read_preferences(table(rows | {"score_chosen": [1, 1, 0], "score_rejected": [0, 0, 1]}))
    assert preferences.notices == ["In 1 of 3 rows another column says the opposite."]


def test_all_ties_are_read() -> None:
    assert [one.winner for one in load_comparisons(table(PAIR | {"outcome": [0.5, 0.5]}))] == [None, None]


def test_nothing_leaves_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(9))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.png").write_bytes(png(1))
    for path in ("../secret.png", str(tmp_path / "secret.png")):
        file = tmp_path / "data" / "rows.jsonl"
        file.write_text(json.dumps({"prompt": "a", "chosen": "mine.png", "rejected": path}), encoding="utf-8")
        with pytest.raises(RequestError, match="leads out of"):
            load_comparisons(file)
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    file.write_text(json.dumps({"prompt": "a", "chosen": "mine.png", "rejected": "link.png"}), encoding="utf-8")
    with pytest.raises(RequestError, match="leads out of"):
        load_comparisons(file)


def test_a_missing_image(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    (tmp_path / "rows.csv").write_text("prompt,chosen,rejected\na,1.png,gone.png\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"row 1: 'rejected' is the text 'gone\.png', and there is no such file in"):
        load_comparisons(tmp_path / "rows.csv")


def test_what_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing more")
    (tmp_path / "broken.json").write_text('[{"prompt": ', encoding="utf-8")
    (tmp_path / "none.csv").write_text("", encoding="utf-8")
    (tmp_path / "header.csv").write_text("prompt,chosen,rejected\n", encoding="utf-8")
    (tmp_path / "rows.csv").write_text("prompt,chosen,rejected\na,b,c\n", encoding="utf-8")
    (tmp_path / "words.txt").write_text("a fox\n", encoding="utf-8")
    for name, said in {
        "empty": "Cannot read the dataset .*empty",
        "broken.parquet": "Cannot read the dataset .*broken.parquet",
        "broken.json": "Cannot read the dataset .*broken.json",
        "none.csv": "Cannot read the dataset .*none.csv",
        "header.csv": "Cannot read the dataset .*header.csv",
        "words.txt": "is no file of preference data",
        "nothing.parquet": r"There is no file .*nothing\.parquet\.",
        "nothing": "There is no folder",
        "rows.csv?split=test": "There is no split named 'test'. Known: train",
        "rows.csv?split=train[:-1]": r"expected a name, or a name with rows: train\[:1000\]",
        "rows.csv?stream=yes": "has to end somewhere",
        "rows.csv?stream=perhaps": "expected yes or no",
        "rows.csv?splt=train": "no part of a dataset named 'splt'.*Did you mean 'split'",
    }.items():
        with pytest.raises(RequestError, match=said):
            load_comparisons(f"{tmp_path}/{name}")
    with pytest.raises(RequestError, match=r"There is no file or folder owner/name.*cannot be loaded from the hub"):
        load_comparisons("owner/name")


def test_no_rows(tmp_path: Path) -> None:
    table(PAIR).select([]).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(RequestError, match=r"Cannot read the dataset .*: it has no rows"):
        load_comparisons(tmp_path / "rows.parquet")
    with pytest.raises(RequestError, match="holds no comparison: it has no rows"):
        load_comparisons(table(PAIR).select([]))


def test_several_splits_and_none_is_named(tmp_path: Path) -> None:
    splits = datasets.DatasetDict({"test": table(PAIR), "validation": table(PAIR).select([1])})
    splits.save_to_disk(tmp_path / "rows")
    with pytest.raises(RequestError, match=r"has the splits test, validation; say which one: '.*rows\?split=test'"):
        load_comparisons(tmp_path / "rows")
    assert len(load_comparisons(f"{tmp_path / 'rows'}?split=validation")) == 1


NAMES = (
    "prompt", "caption", "chosen", "rejected", "jpg_0", "jpg_1", "label_0", "label_1", "has_label", "path1", "path2",
    "choice_dist", "images", "image", "rank", "human_preference", "prompt_id", "outcome", "chosen_first", "voter",
    "repeat", "number", "image_0_uid", "image_1_uid", "chosen_uid", "score_chosen", "score_rejected", "category",
)  # fmt: skip
VALUES = (
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 0.5, 2, -1, 2**40]),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["a", "true", "1", "../x.png", "/etc/passwd", "http://x/y.png", "x" * 5000, "\0"]),
    st.sampled_from([png(1), png(2), b"", b"no image"]),
    st.sampled_from([[png(1), png(2)], [png(1)], [], [1, 2], [0, 1], [None, None]]),
    st.sampled_from([{"bytes": png(1), "path": None}, {"bytes": None, "path": "x.png"}, {"bytes": None, "path": None}]),
)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Small tables: a layout's columns with what they should hold, or columns and values of any kind."""
    whole: list[dict[str, list[Any]]] = [PAIR, {name: values * 2 for name, values in PICK.items()}, {}]
    rows = dict(draw(st.sampled_from(whole)))
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=6, unique=True)):
        kind = draw(st.sampled_from(VALUES))
        rows[name] = draw(st.lists(kind, min_size=2, max_size=2))
    return rows


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_any_table_is_comparisons_or_one_sentence(rows: dict[str, list[Any]]) -> None:
    try:
        dataset = datasets.Dataset.from_dict(rows)
    except (
        pyarrow.ArrowException,
        TypeError,
        ValueError,
        OverflowError,
    ):  # the library cannot hold these values in one column
        return
    try:
        comparisons = load_comparisons(dataset)
    except RequestError as error:
        assert str(error).endswith((".", "?")) and "\n" not in str(error)
        return
    assert comparisons
    for one in comparisons:
        assert one.outcome in (0.0, 0.5, 1.0) and one.first.prompt == one.second.prompt
        assert one.first.id != one.second.id
