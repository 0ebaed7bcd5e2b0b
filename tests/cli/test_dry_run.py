"""`--dry-run` finds what the real command is refused with, by its sentence, and loads, fetches and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import ModelMixin
from transformers import PreTrainedModel

from dipp_cli.app import main
from dipp_pixart.family import write_pixart_twin
from dipp_toolkit.config import make_config
from dipp_toolkit.training.run_state.run_folder import RunFolder

BLUE = "def blueness(images, prompts):\n    return images[:, 2].mean((1, 2))\n"


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny pipelines: a whole one, one of another latent space, and one without its network's weights."""
    folder = tmp_path_factory.mktemp("pipelines")
    write_pixart_twin(folder / "pixart")
    other = write_pixart_twin(folder / "other") / "transformer" / "config.json"
    other.write_text(json.dumps({**json.loads(other.read_text()), "sample_size": 16}))
    broken = write_pixart_twin(folder / "broken")
    for path in (broken / "transformer").glob("*.safetensors"):
        path.unlink()
    return folder


@pytest.fixture
def place(tmp_path: Path, pipelines: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with what somebody has there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipelines").symlink_to(pipelines)
    (tmp_path / "blue.py").write_text(BLUE)
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "note.txt").write_text("mine")
    return tmp_path


@pytest.fixture
def weights_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No library may read weights."""

    def refused(*_args: Any, **_options: Any) -> Any:
        raise AssertionError("a dry run loads weights")

    for kind in (ModelMixin, PreTrainedModel):
        monkeypatch.setattr(kind, "from_pretrained", refused)
    monkeypatch.setattr("safetensors.torch.load_file", refused)
    monkeypatch.setattr("torch.load", refused)


def everything_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


TINY = "--reference ./pipelines/pixart --prompts prompts.txt"
TRAIN = f"train --generator ./pipelines/pixart {TINY} --reward ./blue.py:blueness"
BENCH = "bench --generators best=./pipelines/pixart --prompts prompts.txt --rewards ./blue.py:blueness"
ABLATE = f"ablate --generator ./pipelines/pixart {TINY} --reward ./blue.py:blueness --vary reward_scale=0,1"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train", {"generator": "emoji-onestep", "prompts": "emoji-train, 704", "folder": "runs/emoji-onestep-1"}),
        (TRAIN, {"rewards": "./blue.py:blueness=1; scale 1", "prompts": "prompts.txt, 2"}),
        (
            f"distill {TINY} --steps 7 --batch-size 2 --set accumulation=3",
            {"rewards": "none: distillation alone", "steps": "7 of 6 samples"},
        ),
        (f"{BENCH} --seeds 3", {"generators": "best", "images": "3 for each prompt, 6"}),
        (
            f"{ABLATE} --metrics fid --set metric.fid.images=pipelines --seeds 2",
            {"cells": "4, 0 done already", "varied": "reward_scale: 0, 1; seed: 0, 1"},
        ),
    ],
    ids=["train", "train of one's own", "distill", "bench", "ablate"],
)
def test_says_what_would_be_done(
    line: str, expected: dict[str, str], place: Path, weights_untouched: None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything_in(place)
    assert main([*line.split(), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["to fetch"] == []
    assert {name: told[name] for name in expected} == expected
    assert main([*line.split(), "--dry-run"]) == 0
    table = capsys.readouterr().out
    assert all(text in table for text in expected.values())
    assert everything_in(place) == before


WRONG = [
    "train --reward hp",
    "train --generator emoji-onestp",
    "train --reward ./red.py:redness",
    "train --reward ./blue.py:blue",
    "train --reward ./blue.py:blueness --set reward../blue.py:blueness.strength=2",
    "train --reward emoji-clip --set reward.emoji-clip.strength=2",
    "train --judge emoji-clip",
    "train --set readout=0.5",
    "train --prompts nowhere.txt",
    "train --prompts empty.txt",
    "train --prompts emoji-heldout?category=plaid",
    "train --out used",
    "train --out used --resume",
    "train --device cuda:99",
    "train --reward hps@isolated",
    "train --push-to-hub nobody",
    "train --set term=integral_kll",
    "train --set prompts=emoji-train --set eval_prompts=nowhere.csv",
    "train --generator ./pipelines/nowhere --reference emoji-reference --prompts prompts.txt",
    TRAIN.replace("--reference ./pipelines/pixart", "--reference ./pipelines/broken"),
    TRAIN.replace("--generator ./pipelines/pixart", "--generator ./pipelines/other"),
    "distill --reference ./pipelines/broken --prompts prompts.txt",
    f"{BENCH} --metrics fidd",
    f"{BENCH} --judge ./blue.py:judge",
    f"{BENCH} --set metric.fid.version=2",
    BENCH.replace("prompts.txt", "nowhere.txt"),
    BENCH.replace("./pipelines/pixart", "./pipelines/nowhere"),
    f"{ABLATE} --vary guidance=1,-1",
    ABLATE.replace("blue.py:blueness", "blue.py:blue"),
    f"{ABLATE} --metrics fid --set metric.fid.version=2 --steps 1 --set eval_count=2 --batch-size 1",
    f"{ABLATE} --metrics fidd --steps 1 --set eval_count=2 --batch-size 1",
]


@pytest.mark.parametrize("line", WRONG)
def test_refuses_with_the_sentence_of_the_real_command(
    line: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*line.split(), "--dry-run"]) == 2
    dry = capsys.readouterr()
    assert dry.out == ""
    assert main([*line.split(), "--quiet"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == dry.err.strip()


def test_a_generator_without_weights(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = TRAIN.replace("--generator ./pipelines/pixart", "--generator ./pipelines/broken")
    assert main([*line.split(), "--dry-run"]) == 2
    assert "The weights of 'transformer' are missing" in capsys.readouterr().err


def test_names_what_would_be_fetched(
    place: Path, weights_untouched: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(place / "cache"))
    rewards = "hps,imagereward,pickscore,aesthetic,clip"
    line = f"train --generator pixart-onestep --reward {rewards} --prompts parti --dry-run --json"
    assert main(line.split()) == 0
    told = json.loads(capsys.readouterr().out)
    for what in ("PixArt-XL-2-512x512", "HPSv2", "ImageReward.pt", "vocab.txt", "PickScore_v1", "PartiPrompts.tsv"):
        assert any(what in item for item in told["to fetch"]), what
    assert told["prompts"] == "parti, to be fetched"
    # A published pipeline's configurations are here: what they cannot do is known before anything is fetched.
    assert main([*line.split(), "--set", "readout=1e-9", "--set", "generator_steps=8"]) == 2
    # A reward's file that is named must be there, and other options be right.
    assert main([*line.split(), "--set", "reward.hps.checkpoint=./nowhere.pt"]) == 2
    assert "There is no file" in capsys.readouterr().err
    assert main([*line.split(), "--set", "reward.clip.model=ViT-X"]) == 2
    assert "open_clip model named 'ViT-X'" in capsys.readouterr().err


def test_a_run_that_would_go_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"{TRAIN} --out mine"
    folder = RunFolder(place / "mine")
    assert main([*line.split(), "--resume", "--dry-run"]) == 2
    assert main([*line.split(), "--resume", "auto", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == "mine"
    settings = {
        "generator": "./pipelines/pixart", "reference": "./pipelines/pixart", "prompts": "prompts.txt",
        "rewards": {"./blue.py:blueness": 1.0}, "steps": 300, "out": "mine",
    }  # fmt: skip
    folder.create(make_config(settings))
    (folder.checkpoints / "step-00000100").mkdir(parents=True)
    assert main([*line.split(), "--resume", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == "mine, goes on from step 100"
    assert main([*line.split(), "--resume", "--steps", "50", "--dry-run"]) == 2
    assert "it is at step 100 already" in capsys.readouterr().err
    assert main([*line.split(), "--resume", "--batch-size", "5", "--dry-run"]) == 2
    assert "batch_size" in capsys.readouterr().err
