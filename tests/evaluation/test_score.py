"""`dipp score`: prompts that belong to images, batches by size, summaries, and what is said when it cannot be."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from dipp_cli.actions.pictures import write_pictures
from dipp_cli.app import main
from dipp_toolkit import load_prompts
from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.evaluation.image_prompts import without_grid
from dipp_toolkit.evaluation.scoring import PromptedFile, ScoredFile, score_files, summarise
from dipp_toolkit.rewards.loading import FunctionReward

MINE = """
def red(images, prompts):
    return images[:, 0].mean((1, 2))

def words(images, prompts):
    return [float(len(prompt.split())) for prompt in prompts]

def broken(images, prompts):
    scores = images[:, 0].mean((1, 2))
    return scores.masked_fill(scores > 0.8, float("nan"))

def raising(images, prompts):
    raise ValueError("no such thing")

class Scaled:
    differentiable = True

    def __init__(self, scale=1.0):
        self.scale = scale

    def __call__(self, images, prompts):
        print("a library talks")
        return self.scale * images[:, 0].mean((1, 2))
"""

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "my_reward.py"
    path.write_text(MINE, encoding="utf-8")
    return str(path)


def folder(path: Path, reds: Sequence[int], size: tuple[int, int] = (8, 8)) -> Path:
    """A folder of `1.png`, `2.png`, ... so red."""
    path.mkdir(parents=True)
    for number, red in enumerate(reds, 1):
        Image.new("RGB", size, (red, 0, 0)).save(path / f"{number}.png")
    return path


def prompt_file(path: Path, prompts: Sequence[str]) -> str:
    path.write_text("\n".join(prompts), encoding="utf-8")
    return str(path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Score, and read what `--json` says."""

    def score(*words: object) -> dict[str, Any]:
        assert main(["score", *map(str, words), "--json", "--device", "cpu"]) == 0
        return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]

    return score


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Be refused, by a sentence of the given exit code."""

    def score(*words: object, code: int = 2) -> str:
        assert main(["score", *map(str, words), "--device", "cpu", "--quiet"]) == code
        said = capsys.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        return said.err.strip().splitlines()[-1]

    return score


# What is scored.


def test_one_folder(tmp_path: Path, mine: str, run: Run) -> None:
    images = folder(tmp_path / "images", [255, 0, 51])
    prompts = prompt_file(tmp_path / "prompts.txt", ["one", "two words", "three more words"])
    found = run("--reward", f"{mine}:red,{mine}:words", images, "--prompts", prompts, "--batch-size", 2)
    red = found["rewards"][f"{mine}:red"]
    assert red["mean"] == pytest.approx(0.4)
    assert red["low"] < 0.4 < red["high"]  # of three images, wider than scores can be
    assert red["drawn"] == "prompts"
    assert red["lowest"] == {"file": str(images / "2.png"), "score": 0}
    assert red["highest"] == {"file": str(images / "1.png"), "score": 1}
    assert [item["scores"][f"{mine}:words"] for item in found["images"]] == [1, 2, 3]
    assert [item["prompt"] for item in found["images"]] == ["one", "two words", "three more words"]
    assert found["folders"] == [{"folder": str(images), "images": 3, "rewards": found["rewards"]}]


def test_several_folders_are_compared(tmp_path: Path, mine: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    far = tmp_path / ("far" * 40)  # no path is folded where stdout is no terminal
    before, after = folder(far / "before", [0, 51]), folder(far / "after", [204, 255])
    words = ["--reward", f"{mine}:red", str(before), str(after), "--prompt", "red"]
    found = run(*words)
    means = {Path(item["folder"]).name: item["rewards"][f"{mine}:red"]["mean"] for item in found["folders"]}
    assert means == {"before": pytest.approx(0.1), "after": pytest.approx(0.9)}
    assert found["rewards"][f"{mine}:red"]["mean"] == pytest.approx(0.5)
    assert {item["folder"] for item in found["images"]} == {str(before), str(after)}
    assert main(["score", *words]) == 0
    said = capsys.readouterr()
    for part in (str(before), str(after), "0.100 [−1.171, 1.371]", "0.900 [−0.371, 2.171]", "2.png"):
        assert part in said.out
    assert "4 of 4 images scored" in said.err


def test_two_folders_of_the_same_prompts_have_a_paired_difference(
    tmp_path: Path, mine: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prompts differ far more than the folders do: the two means overlap, the difference does not hold zero."""
    reds = [20 * number for number in range(10)]
    before = folder(tmp_path / "before", reds)
    after = folder(tmp_path / "after", [red + 51 + number for number, red in enumerate(reds)])
    prompts = prompt_file(tmp_path / "prompts.txt", [f"prompt {number}" for number in range(10)])
    words = ["--reward", f"{mine}:red", before, after, "--prompts", prompts]
    found = run(*words)
    (pair,) = found["pairs"]
    assert pair["difference"] == pytest.approx((51 + 4.5) / 255) and pair["low"] > 0.2 and pair["prompts"] == 10
    assert pair["p_value"] == pytest.approx(2 / 2**10) and pair["win_rate"] == 1
    assert pair["winner"] == str(after) and "is better" in pair["text"]
    apart = [item["rewards"][f"{mine}:red"] for item in found["folders"]]
    assert max(item["low"] for item in apart) < min(item["high"] for item in apart)
    assert main(["score", *map(str, words), "--device", "cpu"]) == 0
    assert "corrected p = 0.002" in capsys.readouterr().out


def test_folders_are_paired_by_prompt_and_else_by_file_name(tmp_path: Path, mine: str, run: Run) -> None:
    """Of one prompt the file names pair; of other prompts or names nothing does, and a notice says so."""
    one, two = folder(tmp_path / "one", [0, 51, 102]), folder(tmp_path / "two", [51, 102, 153])
    (pair,) = run("--reward", f"{mine}:red", one, two, "--prompt", "red")["pairs"]
    assert pair["difference"] == pytest.approx(0.2) and pair["prompts"] == 3
    assert pair["winner"] == "" and "no measurable difference" in pair["text"]  # three pairs cannot say more
    more = folder(tmp_path / "more", [0, 0])
    found = run("--reward", f"{mine}:red", one, more, "--prompt", "red")
    assert found["pairs"] == [] and any("different file names" in notice for notice in found["notices"])
    third = folder(tmp_path / "third", [0, 0, 0])
    found = run("--reward", f"{mine}:red,{mine}:words", one, two, third, "--prompt", "red")
    assert len(found["pairs"]) == 6 and all(pair["p_adjusted"] >= pair["p_value"] for pair in found["pairs"])


def test_sizes_are_batched_apart_and_come_back_in_order(tmp_path: Path) -> None:
    sizes = [(8, 8), (16, 8), (8, 8), (9, 7), (10, 7), (11, 7), (12, 7), (13, 7), (14, 7), (8, 8), (16, 8)]
    files = []
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", size, (number, 0, 0)).save(path)
        files.append(PromptedFile(path, f"prompt {number}"))
    shapes: list[tuple[int, ...]] = []
    done: list[int] = []

    def red(images: Tensor, prompts: Sequence[str]) -> Tensor:
        shapes.append(tuple(images.shape))
        assert [f"prompt {round(item)}" for item in (images[:, 0, 0, 0] * 255).tolist()] == list(prompts)
        return images[:, 0].mean((1, 2))

    scored, notices = score_files({"red": FunctionReward("red", red)}, files, batch=2, progress=done.append)
    assert [round(item.scores["red"] * 255) for item in scored] == list(range(len(sizes)))
    assert [item.file for item in scored] == files
    assert max(shape[0] for shape in shapes) == 2
    assert done == sorted(done)
    assert done[-1] == len(sizes)
    assert notices == []


def test_one_reward_cannot_spoil_the_images_of_the_next(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (51, 0, 0)).save(tmp_path / "a.png")
    rewards = {
        "spoils": FunctionReward("spoils", lambda images, prompts: images.zero_().mean((1, 2, 3))),
        "red": FunctionReward("red", lambda images, prompts: images[:, 0].mean((1, 2))),
    }
    scored, _ = score_files(rewards, [PromptedFile(tmp_path / "a.png", "")])
    assert scored[0].scores == {"spoils": 0, "red": pytest.approx(0.2)}


def test_prompts_are_what_the_interval_draws() -> None:
    def scored(values: Sequence[float], prompts: Sequence[str]) -> list[ScoredFile]:
        return [
            ScoredFile(PromptedFile(Path(str(value)), prompt), {"r": value})
            for value, prompt in zip(values, prompts, strict=True)
        ]

    same = summarise(scored([0.0, 1.0, 2.0, 3.0], ["a"] * 4), "r")
    assert (same.drawn, same.interval.mean) == ("images", 1.5)
    assert same.interval.low < 1.5 < same.interval.high
    pairs = summarise(scored([0.0, 3.0, 0.0, 3.0], ["a", "a", "b", "b"]), "r")
    assert (pairs.drawn, pairs.interval.low, pairs.interval.high) == ("prompts", 1.5, 1.5)
    uneven = summarise(scored([0.0, 0.0, 0.0, 3.0], ["a", "a", "a", "b"]), "r")
    assert uneven.interval.mean == 1.5
    assert (uneven.lowest.scores["r"], uneven.highest.scores["r"]) == (0.0, 3.0)


# Which prompt belongs to which image.


def test_prompts_by_file_name_and_in_natural_order(tmp_path: Path, mine: str, run: Run) -> None:
    images = folder(tmp_path / "images", [0] * 10)
    lines = [" ".join(["word"] * number) for number in range(1, 11)]
    by_name = {f"{number}.png": line for number, line in enumerate(lines, 1)}
    (tmp_path / "p.json").write_text(json.dumps(by_name), encoding="utf-8")
    (tmp_path / "p.jsonl").write_text(
        "\n".join(json.dumps({"file_name": f"elsewhere/{name}", "text": text}) for name, text in by_name.items()),
        encoding="utf-8",
    )
    with (tmp_path / "p.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows(
            [("file", "prompt"), *((name.removesuffix(".png"), value) for name, value in by_name.items())]
        )
    for prompts in (
        prompt_file(tmp_path / "p.txt", lines),
        *(tmp_path / f"p.{kind}" for kind in ("json", "jsonl", "csv")),
    ):
        found = run("--reward", f"{mine}:words", images, "--prompts", prompts)
        assert [item["scores"][f"{mine}:words"] for item in found["images"]] == list(range(1, 11))


def test_one_table_with_ids_serves_all_commands(
    tmp_path: Path, mine: str, run: Run, refused: Callable[..., str]
) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text('id,prompt\nb7,"a red ""fox"""\na3,cake\nc1,two owls\n', encoding="utf-8")
    texts_of_training = [prompt.text for prompt in load_prompts(str(table)).prompts]
    assert texts_of_training == ['a red "fox"', "cake", "two owls"]
    # In the table's order, as `dipp generate --prompts` numbers its pictures.
    write_pictures(torch.rand(3, 3, 8, 8), texts_of_training, tmp_path / "made")
    in_order = run("--reward", f"{mine}:words", tmp_path / "made", "--prompts", table)
    assert [item["prompt"] for item in in_order["images"]] == texts_of_training
    # By id, whatever the order, where pictures are called so.
    images = folder(tmp_path / "named", [0, 1, 2])
    for number, name in enumerate(("a3", "b7", "c1"), 1):
        (images / f"{number}.png").rename(images / f"{name}.png")
    (images / "c1.png").unlink()
    by_id = run("--reward", f"{mine}:words", images, "--prompts", table)
    assert [item["prompt"] for item in by_id["images"]] == ["cake", 'a red "fox"']
    said = refused("--reward", f"{mine}:words", folder(tmp_path / "other", [0, 1]), "--prompts", table)
    assert "3 prompts" in said
    assert "or images called by the prompts' ids" in said


def test_prompts_of_which_some_name_an_image(tmp_path: Path, mine: str, refused: Callable[..., str]) -> None:
    (tmp_path / "p.jsonl").write_text('{"file": "1.png", "prompt": "a"}\n{"prompt": "b", "id": "x"}\n')
    said = refused("--reward", f"{mine}:words", folder(tmp_path / "a", [0, 1]), "--prompts", tmp_path / "p.jsonl")
    assert "names an image for some prompts and none for 'x'" in said


def test_a_file_of_scores_is_a_file_of_prompts(tmp_path: Path, mine: str, run: Run) -> None:
    before, after = folder(tmp_path / "before", [0, 1]), folder(tmp_path / "after", [0, 1])
    first = run("--reward", f"{mine}:words", before, "--prompts", prompt_file(tmp_path / "a.txt", ["a", "a b"]))
    (tmp_path / "first.json").write_text(json.dumps(first), encoding="utf-8")
    found = run("--reward", f"{mine}:words", after, "--prompts", tmp_path / "first.json")
    assert [item["prompt"] for item in found["images"]] == ["a", "a b"]


def test_prompts_beside_the_images(tmp_path: Path, mine: str, run: Run) -> None:
    images = folder(tmp_path / "images", [0, 0])
    (images / "metadata.jsonl").write_text(
        '{"file_name": "1.png", "text": "a"}\n{"file_name": "2.png", "text": "a b c"}\n', encoding="utf-8"
    )
    found = run("--reward", f"{mine}:words", images)
    assert found["rewards"][f"{mine}:words"]["mean"] == 2
    assert "metadata.jsonl" in found["notices"][0]


def test_what_dipp_generate_leaves_is_understood(
    tmp_path: Path, mine: str, run: Run, refused: Callable[..., str]
) -> None:
    prompts = ["A red apple", "a cat, on green"]
    written = write_pictures(torch.rand(2, 3, 8, 8), prompts, tmp_path / "made")
    assert written[-1].name == "grid.png"
    found = run("--reward", f"{mine}:words", tmp_path / "made")
    assert [item["prompt"] for item in found["images"]] == prompts
    assert "prompts.json" in found["notices"][0]
    (tmp_path / "made" / "prompts.json").unlink()
    found = run("--reward", f"{mine}:words", tmp_path / "made")
    assert [item["prompt"] for item in found["images"]] == ["a red apple", "a cat on green"]
    assert "without capitals and punctuation" in found["notices"][0]
    with_file = run(
        "--reward", f"{mine}:words", tmp_path / "made", "--prompts", prompt_file(tmp_path / "p.txt", prompts)
    )
    assert [item["prompt"] for item in with_file["images"]] == prompts
    said = {"prompts": prompts, "images": [str(path) for path in written[:-1]], "grid": str(written[-1])}
    (tmp_path / "made.json").write_text(json.dumps(said), encoding="utf-8")
    assert run("--reward", f"{mine}:words", tmp_path / "made", "--prompts", tmp_path / "made.json")["notices"] == []
    write_pictures(torch.rand(1, 3, 8, 8), ["a very long prompt that goes on and on without an end"], tmp_path / "long")
    (tmp_path / "long" / "prompts.json").unlink()
    assert "cut short" in refused("--reward", f"{mine}:words", tmp_path / "long")


def test_a_grid_among_other_pictures_is_a_picture() -> None:
    assert without_grid([Path("001-a.png"), Path("grid.png")]) == [Path("001-a.png")]
    assert without_grid([Path("a.png"), Path("grid.png")]) == [Path("a.png"), Path("grid.png")]
    assert without_grid([Path("grid.png")]) == [Path("grid.png")]


def test_single_images_are_one_group(tmp_path: Path, mine: str, run: Run) -> None:
    images = folder(tmp_path / "images", [0] * 10)
    words = [images / f"{number}.png" for number in (10, 9, 9)]
    found = run("--reward", f"{mine}:words", *words, "--prompts", prompt_file(tmp_path / "p.txt", ["a", "a b"]))
    assert [(Path(item["file"]).name, item["prompt"]) for item in found["images"]] == [
        ("9.png", "a"),
        ("10.png", "a b"),
    ]
    assert len(found["folders"]) == 1


def test_an_empty_prompt_may_be_meant(tmp_path: Path, mine: str, run: Run) -> None:
    found = run("--reward", f"{mine}:words", folder(tmp_path / "images", [0]), "--prompt", "")
    assert found["images"][0]["prompt"] == ""
    assert found["images"][0]["scores"] == {f"{mine}:words": 0}


# What is written and said.


def test_scores_of_every_image_are_written(tmp_path: Path, mine: str, run: Run) -> None:
    images, out = folder(tmp_path / "images", [0, 255]), tmp_path / "scores.jsonl"
    found = run("--reward", f"{mine}:red", images, "--prompt", "größer", "--out", out)
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == found["images"]
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_options_reach_the_reward(tmp_path: Path, mine: str, run: Run) -> None:
    images, name = folder(tmp_path / "images", [255]), f"{mine}:Scaled"
    assert (
        run("--reward", name, images, "--prompt", "", "--set", f"reward.{name}.scale=3")["rewards"][name]["mean"] == 3
    )


def test_transparent_images_are_said_once(tmp_path: Path, mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    images = folder(tmp_path / "images", [0])
    for name in "ab":
        Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(images / f"{name}.png")
    assert main(["score", "--reward", f"{mine}:red", str(images), "--prompt", ""]) == 0
    said = capsys.readouterr()
    assert said.err.count("Of 3 images, 2 transparent, shown on white.") == 1


def test_a_bar_on_a_terminal(
    tmp_path: Path, mine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the captured stderr for a terminal then
    images = folder(tmp_path / "images", [0, 1])
    assert main(["score", "--reward", f"{mine}:red", str(images), "--prompt", "", "--json"]) == 0
    said = capsys.readouterr()
    assert "2/2" in said.err
    assert json.loads(said.out)["images"]


# What is refused.


def test_wrong_requests(tmp_path: Path, mine: str, refused: Callable[..., str]) -> None:
    images = folder(tmp_path / "images", [0, 1, 2])
    two = prompt_file(tmp_path / "two.txt", ["a", "b"])
    (tmp_path / "names.json").write_text('{"7.png": "a cat"}', encoding="utf-8")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "bad.png").write_text("no image", encoding="utf-8")
    red = ("--reward", f"{mine}:red")
    cases: list[tuple[Sequence[object], list[str]]] = [
        ((*red, images), ["no prompts for the images", "--prompts FILE", "--prompt TEXT"]),
        ((*red, images, "--prompts", two), ["has 2 prompts", "has 3 images"]),
        ((*red, images, "--prompts", tmp_path / "names.json"), ["no prompt for 1.png", "'7.png'"]),
        ((*red, images, "--prompts", tmp_path / "missing.txt"), ["missing.txt", "No such file"]),
        ((*red, images, "--prompts", "emoji-heldaut"), ["no prompt set", "Did you mean 'emoji-heldout'"]),
        ((*red, images, "--prompts", two, "--prompt", "a"), ["not by both"]),
        ((*red, tmp_path / "missing", "--prompt", "a"), ["no image or folder", "missing"]),
        ((*red, tmp_path / "nothing", "--prompt", "a"), ["nothing contains no images"]),
        ((*red, tmp_path / "bad.png", "--prompt", "a"), ["bad.png is not a readable image"]),
        (("--reward", f"{mine}:red=2", images, "--prompt", "a"), ["gives a weight", f"--reward {mine}:red alone"]),
        (("--reward", "sharpness=1", images, "--prompt", "a"), ["gives a weight"]),
        (("--reward", "sharpness,sharpness", images, "--prompt", "a"), ["named twice"]),
        (("--reward", ",", images, "--prompt", "a"), ["No reward is named"]),
        (("--reward", "sharpnes", images, "--prompt", "a"), ["Did you mean 'sharpness'"]),
        ((*red, images, "--prompt", "a", "--batch-size", 0), ["--batch-size is 0"]),
        ((*red, images, "--prompt", "a", "--seed", -1), ["--seed is -1"]),
        ((*red, images, "--prompt", "a", "--out", tmp_path), ["it is a folder"]),
        ((*red, images, "--prompt", "a", "--out", tmp_path / "no" / "s.jsonl"), ["there is no folder"]),
        ((*red, images, "--prompt", "a", "--set", "steps=3"), ["--set steps is not an option of a reward"]),
    ]
    for words, parts in cases:
        sentence = refused(*words)
        for part in parts:
            assert part in sentence, sentence


def test_a_reward_that_fails_is_named_with_the_image(tmp_path: Path, mine: str, refused: Callable[..., str]) -> None:
    images = folder(tmp_path / "images", [0, 255, 10])
    sentence = refused("--reward", f"{mine}:broken", images, "--prompt", "a", code=1)
    assert f"{mine}:broken" in sentence
    assert "not finite for 1 of 3 images" in sentence
    assert f"(first image: {images / '2.png'})" in sentence
    sentence = refused("--reward", f"{mine}:raising", images, "--prompt", "a", code=1)
    assert "ValueError: no such thing" in sentence
    assert f"(first image: {images / '1.png'})" in sentence
    only_together = FunctionReward("r", lambda images, prompts: [0.0] * (1 if len(images) == 1 else 7))
    files = [PromptedFile(images / f"{number}.png", "a") for number in (1, 2, 3)]
    with pytest.raises(RunError, match=r"images: .*1\.png and 2 more"):
        score_files({"r": only_together}, files)


def test_a_reward_that_refuses_keeps_its_kind_of_error(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def refuses(images: Tensor, prompts: Sequence[str]) -> Tensor:
        raise RequestError("The prompt is too long.")

    files = [PromptedFile(tmp_path / "a.png", "a")]
    with pytest.raises(RequestError, match=r"The prompt is too long \(image: .*a\.png\)\."):
        score_files({"r": FunctionReward("r", refuses)}, files)
    with pytest.raises(RunError, match=r"shape \(2,\).*a\.png"):
        score_files({"r": FunctionReward("r", lambda images, prompts: [1.0, 2.0])}, files)
