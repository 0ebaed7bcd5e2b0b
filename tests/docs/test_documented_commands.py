"""Every command and Python block of README.md and docs/ is run as it is pasted, in its order; see `documented`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import dipp_toolkit
from dipp_cli.app import main
from dipp_toolkit import RunResult, TrainConfig
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.preferences.vote_file import NewCandidate, VoteFile
from documented import MODES, ROOT, Mode, Runner, blocks_of, copied, spelled
from fake_votes import fake_images, fake_votes

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if blocks_of(page)]
SHORT = {"steps": 1, "batch_size": 2, "eval_count": 2, "reference_steps": 2, "assistant_warmup": 0}


@contextmanager
def short_trainings() -> Iterator[None]:
    """Trainings from Python take a step."""
    train = dipp_toolkit.train

    def short(config: TrainConfig | None = None, **options: Any) -> RunResult:
        return train(config, **{**options, **SHORT})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dipp_toolkit, "train", short)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[[Path], object]]:
    """What pages take to be there already, each made once and only where it is asked for."""
    folder = tmp_path_factory.mktemp("finished")

    def run(place: Path) -> None:
        assert main(spelled(["train", "--out", str(place)], Mode("small"))) == 0

    def bench(place: Path) -> None:
        words = "--generators emoji-onestep --prompts emoji-heldout?count=2 --rewards emoji-clip --judge emoji-judge"
        assert main(["bench", *words.split(), "--seeds", "2", "--quiet", "--out", str(place)]) == 0

    def pictures(place: Path) -> None:
        prompts = ("--prompt", "fox on blue", "--prompt", "birthday cake on yellow")
        assert main(["generate", *prompts, "--out", str(place)]) == 0

    def votes(place: Path) -> None:
        images = fake_images(4)
        with VoteFile.open(place, create=True) as file:
            file.add(NewCandidate(one.prompt, one.maker, one.picture.read(), one.category) for one in images)
            kept = {(one.prompt, one.maker): one for one in file.candidates()}
            for vote in fake_votes(images, count=30):
                pair = (kept[image.prompt, image.maker].id for image in (vote.first, vote.second))
                file.vote(file.show(vote.voter, *pair).id, "first" if vote.outcome else "second")

    makers: dict[str, Callable[[Path], object]] = {
        "run": run, "bench": bench, "pictures": pictures, "votes": votes,
        "twin": partial(write_twin, "PixArtAlphaPipeline"), "sd-twin": partial(write_twin, "StableDiffusionPipeline"),
    }  # fmt: skip

    def made(name: str) -> Path:
        if not (folder / name).exists():
            makers[name](folder / name)
        return folder / name

    copies = {name: lambda place, name=name: copied(made(name))(place) for name in makers}

    def rows(place: Path) -> None:
        copied(made("bench") / "results.jsonl")(place)

    return {**copies, "rows": rows}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_a_page_does_what_it_says(
    page: Path, finished: dict[str, Callable[[Path], object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runner = Runner(tmp_path, finished, short_trainings)
    for block in blocks_of(page):
        runner.run(block)


def test_what_is_not_run_has_a_reason_and_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [block for page in PAGES for block in blocks_of(page)]
    commands = [(block, mode) for block in blocks for _, mode in block.each()]
    for block, mode in commands:
        assert mode.name in MODES, block.where
        assert bool(mode.reason) == (mode.name in ("words", "skip")), f"{block.where}: why is it not run?"
    counts = Counter(mode.name for _, mode in commands)
    skipped = [block for block in blocks if all(mode.name == "skip" for _, mode in block.each())]
    with capsys.disabled():
        parts = ", ".join(f"{counts[name]} {name}" for name in MODES)
        print(f"\n{len(blocks)} blocks of {len(PAGES)} pages, {len(commands)} commands: {parts}", end=" ")
    assert len(skipped) * 5 <= len(blocks), "most of what is written down is run"
