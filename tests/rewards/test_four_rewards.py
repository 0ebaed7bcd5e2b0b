"""One run with four rewards at once: in this process, of a file, in an environment of its own, and over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dipp_cli.app import main
from dipp_toolkit.rewards.isolated import environments

COLOURS = """
def blue(images, prompts):
    return images[:, 2].mean((1, 2))

def warm(images, prompts):
    return images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2))
"""

FRAGILE = """
import os, pathlib, sys

def fragile(images, prompts):
    calls = pathlib.Path("calls")
    calls.write_text(calls.read_text() + "." if calls.exists() else ".")
    if len(calls.read_text()) >= 5 and not pathlib.Path("mended").exists():
        print("out of luck", file=sys.stderr, flush=True)
        os._exit(3)
    return images[:, 1].mean((1, 2))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    (folder / "colours.py").write_text(COLOURS)
    place = environments.default_folder() / "colours"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (place / environments.MARKER).write_text(json.dumps({"python": environments.PYTHON, "requirements": []}))
    return folder


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where `dipp reward serve` says that it serves."""
    words = [sys.executable, "-m", "dipp_cli", "reward", "serve", "sharpness", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split("--reward ")[1].strip()
        server.terminate()


def test_four_rewards_at_once(
    folder: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    names = ["emoji-clip", "./colours.py:blue", "./colours.py:warm@colours", address]
    rewards = f"emoji-clip=0.02,./colours.py:blue=0.5,./colours.py:warm@colours=0.5,{address}=0.1"
    words = ["train", "--reward", rewards, "--steps", "3", "--batch-size", "4", "--set", "eval_count=2"]
    words += ["--set", "reference_steps=1", "--balance", "pcgrad", "--out", str(tmp_path / "run"), "--json"]
    assert main(words) == 0
    summary = json.loads(capsys.readouterr().out)
    assert list(summary["rewards"]) == names
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        for name in names:
            assert row[f"grad_norm/reward/{name}"] > 0
            assert isinstance(row[f"reward/{name}"], float)
    report = (tmp_path / "run" / "report.html").read_text()
    assert "warm@colours" in report and "sharpness" in report


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:The worker")
def test_a_worker_that_keeps_dying_loses_no_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the fourth step, the first call being a trial; it is started again, dies again, is mended, and goes on."""
    monkeypatch.chdir(folder)
    (folder / "fragile.py").write_text(FRAGILE)
    words = ["train", "--reward", "./fragile.py:fragile@colours", "--steps", "5", "--batch-size", "2", "--quiet"]
    assert main([*words, "--set", "eval_count=2", "--set", "reference_steps=1", "--out", "run"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "died again" in last and "out of luck" in last
    assert last.endswith(
        "The run stopped after step 3 of 5; everything is saved. Go on with: dipp train --resume --out run"
    )
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["step-00000003"]
    Path("mended").touch()
    assert main(["train", "--resume", "--out", "run", "--quiet"]) == 0
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
