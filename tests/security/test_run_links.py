"""A run that goes on in the folder of somebody else: links are not followed out of it, to write or to remove."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dipp_cli.app import main
from tiny import PROMPTS, tiny_pipeline


def train(*more: str) -> int:
    words = ["distill", "--reference", "./tiny", "--prompts", "prompts.txt", "--batch-size", "2", "--out", "run"]
    quick = {"eval_count": 2, "reference_steps": 1, "checkpoint_every": 1, "sample_every": 1, "keep_checkpoints": 1}
    for name, value in quick.items():
        words += ["--set", f"{name}={value}"]
    return main([*words, *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one step, and all that it was made of."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_pipeline(folder / "tiny")
        (folder / "prompts.txt").write_text("\n".join(PROMPTS))
        assert train("--steps", "1") == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which the run may go on."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Path("run")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that belongs to somebody else."""
    folder = tmp_path / "outside"
    (folder / "step-00000001").mkdir(parents=True)
    for place in (folder, folder / "step-00000001"):
        (place / "treasure.txt").write_text("mine")
    return folder


def untouched(folder: Path) -> bool:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return files == {"treasure.txt": b"mine", "step-00000001/treasure.txt": b"mine"}


@pytest.mark.parametrize("name", ["samples", "checkpoints", "final", "samples/comparison"])
def test_a_folder_that_is_a_link_is_refused(
    run: Path, outside: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / name)
    (run / name).symlink_to(outside)
    assert train("--steps", "2", "--resume") == 2
    assert f"'run/{name}' leads out of run" in capsys.readouterr().err
    assert untouched(outside)


def test_files_take_the_place_of_links(run: Path, outside: Path) -> None:
    """Such as those that wait where a file is put together before it gets its name."""
    names = ["config.yaml", "metrics.jsonl", "summary.json", "report.html", "before_after.png"]
    links = [run / f".{name}.partial" for name in names] + [run / "samples" / "step-00000002.png"]
    for path in links:
        path.symlink_to(outside / "treasure.txt")
    assert train("--steps", "2", "--resume") == 0
    assert not any(path.is_symlink() for path in (*links, *run.rglob("*")))
    assert untouched(outside)


def test_checkpoints_that_are_links_are_removed_alone(run: Path, outside: Path) -> None:
    for name in ("step-00000000", ".step-00000002.partial", ".step-00000002.older"):
        (run / "checkpoints" / name).symlink_to(outside)
    assert train("--steps", "2", "--resume") == 0
    left = [path.name for path in (run / "checkpoints").iterdir() if not path.name.startswith(".")]
    assert left == ["step-00000002"] and not (run / "checkpoints" / ".step-00000002.partial").exists()
    assert untouched(outside)
