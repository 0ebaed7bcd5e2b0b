"""Names and links never leave their folder: what is written, copied, read and removed stays below it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dipp_cli.actions.pictures import write_pictures
from dipp_toolkit.config import make_config
from dipp_toolkit.errors import CheckpointError, RequestError
from dipp_toolkit.evaluation.comparison import INDEX, Comparison
from dipp_toolkit.experiments.ablation.cells import folders_of
from dipp_toolkit.experiments.ablation.grid import LONGEST, make_cell
from dipp_toolkit.experiments.bench.score_cache import folder_of
from dipp_toolkit.models.export import export_pipeline
from dipp_toolkit.models.files.folders import family_of
from dipp_toolkit.models.loading import load_generator, load_reference
from dipp_toolkit.prompts.loading import load_prompts
from dipp_toolkit.rewards.isolated.environments import find_installed
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.rewards.remote.address import parse_addresses
from dipp_toolkit.training.run_state.run_folder import choose_folder
from dipp_toolkit.utils.images import save_grid
from dipp_toolkit.utils.paths import below, check_all_below, is_there, remove_below, unlinked, user_path
from tiny import PROMPTS, tiny_pipeline

ESCAPES = ("../x", "../../x", "/etc/passwd", "a/../../x", "..", ".", "", "a/../..")
IMPOSSIBLE = ("a\0b", "x" * 300, "/" + "a/" * 3000, "~nobody-of-this-name/x", "\udc80", "\ud800")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder that belongs to somebody else; nothing in it may change."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "treasure.txt").write_text("mine")
    (folder / "step-00000001").mkdir()
    (folder / "step-00000001" / "treasure.txt").write_text("mine")
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield folder
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# The module itself.


@pytest.mark.parametrize("name", ESCAPES)
def test_names_that_leave_a_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "run" / "a").mkdir(parents=True)
    with pytest.raises(RequestError, match=r"leads out of|cannot be"):
        below(tmp_path / "run", name)


def test_names_that_stay_are_the_plain_path(tmp_path: Path) -> None:
    assert below(tmp_path / "run", "samples", "a.png") == tmp_path / "run" / "samples" / "a.png"
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert below(tmp_path / "link", "samples") == tmp_path / "link" / "samples"
    (tmp_path / "run" / "b").mkdir(parents=True)
    (tmp_path / "run" / "inside").symlink_to("b")
    assert below(tmp_path / "run", "inside", "x") == tmp_path / "run" / "inside" / "x"


def test_links_that_leave_a_folder_are_refused(tmp_path: Path, outside: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "samples").symlink_to(outside)
    (run / "file.txt").symlink_to(outside / "treasure.txt")
    (run / "loop").symlink_to("loop")
    for name in ("samples", "samples/new.png", "file.txt"):
        with pytest.raises(RequestError, match=rf"'{run / name}' leads out of {run}, to '{outside}"):
            below(run, name)
    with pytest.raises(RequestError, match="cannot be a file or folder"):
        below(run, "loop")
    with pytest.raises(RequestError, match="leads out of"):
        check_all_below([run / "fine", run / "samples"], run)


def test_removing_a_link_removes_the_link(tmp_path: Path, outside: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "step-00000001").symlink_to(outside)
    (run / "file").symlink_to(outside / "treasure.txt")
    remove_below(run / "step-00000001", run)
    remove_below(run / "file", run)
    remove_below(run / "nothing", run)
    assert list(run.iterdir()) == []
    (run / "checkpoints").symlink_to(outside)
    with pytest.raises(RequestError, match="leads out of"):
        remove_below(run / "checkpoints" / "step-00000001", run)
    (run / "own" / "deep").mkdir(parents=True)
    remove_below(run / "own", run)
    assert not (run / "own").exists()


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_names_that_nothing_can_have_are_a_sentence(name: str) -> None:
    assert not is_there(name)
    with pytest.raises(RequestError, match="cannot be a file or folder: ") as caught:
        user_path(name)
    assert len(str(caught.value)) < 500 and "\0" not in str(caught.value)
    for load in (load_generator, load_reference, load_reward, load_prompts):
        with pytest.raises(RequestError):
            load(name)
        with pytest.raises(RequestError):
            load(f"./{name}")
    with pytest.raises(RequestError):
        make_config({"out": Path(name)})


# Names that become names of files.


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "..", "../..", "diffusers:../x", "a/..", "x\0y", "\x1b[31m", "é" * 90]
)
def test_a_run_without_a_name_lies_below_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    found = choose_folder(make_config({"generator": name})).path
    assert found.parent == Path("runs") and found.name not in (".", "..") and found.name.isprintable()


def test_prompts_name_pictures_inside_the_folder(tmp_path: Path) -> None:
    prompts = ["../../x", "/etc/passwd", "..", "\0", "a" * 500, "\ud800", "C:\\x"]
    written = write_pictures(
        torch.rand(len(prompts), 3, 4, 4), [prompt.replace("\ud800", "?") for prompt in prompts], tmp_path / "out"
    )
    assert {path.parent for path in written} == {tmp_path / "out"} and len(set(written)) == len(prompts) + 1


@pytest.mark.parametrize("value", ["../../x", "/etc", "..", "é" * 200, "a\0b", "x" * 300])
def test_cells_are_folders_inside_the_ablation(tmp_path: Path, value: str) -> None:
    (folder,) = folders_of([make_cell({"term": value})], tmp_path)
    assert folder.path.parent == tmp_path / "cells" and below(tmp_path, folder.path.relative_to(tmp_path))
    assert len(folder.path.name.encode()) <= 2 * LONGEST and "\0" not in folder.path.name


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "./a.py:b", "..", "http://a/../b", "é" * 300, "a\0b"])
def test_answers_are_folders_inside_the_bench(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path, name, "0" * 16)
    assert folder.parent == tmp_path / "answers" and len(folder.name.encode()) < 100


def test_answers_do_not_follow_a_link_out_of_the_bench(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "answers").symlink_to(outside)
    with pytest.raises(RequestError, match="leads out of"):
        folder_of(tmp_path / "bench", "hps", "0" * 16)


@pytest.mark.parametrize("name", ["../mine", "..", "a/b", ".hidden", "mine/../../x"])
def test_environments_are_plain_names(name: str) -> None:
    with pytest.raises(RequestError, match=r"There is no environment named|There is no reward named|cannot be"):
        find_installed(name)
    with pytest.raises(RequestError):
        load_reward(f"sharpness@{name}")


def test_names_of_served_rewards_are_quoted_in_addresses() -> None:
    (address,) = parse_addresses("http://127.0.0.1:1/a/..%2f..%2fetc")
    assert (address.base, address.reward) == ("http://127.0.0.1:1/a", "../../etc")


# Pipelines that are copied, and exports.


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return tiny_pipeline(tmp_path / "tiny")


@pytest.mark.parametrize(
    "name", ["../outside", "{outside}", "vae/../../outside", "", ".", "a b", "text_encoder/../vae"]
)
def test_an_index_names_folders_of_its_own(pipeline: Path, outside: Path, name: str) -> None:
    path = pipeline / "model_index.json"
    index = json.loads(path.read_text()) | {name.format(outside=outside): ["diffusers", "AutoencoderKL"]}
    path.write_text(json.dumps(index))
    with pytest.raises(RequestError, match=r"names a component '.*' in model_index.json; expected a plain word"):
        family_of(pipeline)
    generator = torch.nn.Linear(1, 1)
    with pytest.raises(RequestError, match="expected a plain word"):
        export_pipeline(pipeline, pipeline.parent / "final", "transformer", generator, None)
    assert not (pipeline.parent / "final").exists()


def test_an_export_takes_the_place_of_a_link_and_not_of_what_it_leads_to(pipeline: Path, outside: Path) -> None:
    generator = load_generator("./tiny")
    for name in ("final", ".final.partial"):
        Path(name).symlink_to(outside)
    generator.save_pretrained(Path("final"))
    assert not Path("final").is_symlink() and Path("final/model_index.json").is_file()
    assert not Path(".final.partial").exists()


def test_pictures_take_the_place_of_links(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "grid.png").symlink_to(outside / "treasure.txt")
    save_grid(torch.rand(2, 3, 4, 4), tmp_path / "grid.png")
    assert not (tmp_path / "grid.png").is_symlink()
    folder = tmp_path / "comparison"
    folder.mkdir()
    for name in ("before-000.png", INDEX):
        (folder / name).symlink_to(outside / "treasure.txt")
    Comparison(["a"], [1, 2], {"before": torch.rand(1, 2, 3, 4, 4)}).save(folder)
    assert Comparison.load(folder).prompts == ["a"]
    (tmp_path / "kept").write_text("kept")
    assert unlinked(tmp_path / "kept").read_text() == "kept"


@pytest.mark.parametrize("sheet", ["../secret.png", "{secret}", "link.png"])
def test_a_comparison_reads_its_own_sheets_alone(tmp_path: Path, sheet: str) -> None:
    """Pictures of elsewhere would be shown in a report that is passed on."""
    folder = tmp_path / "run" / "comparison"
    Comparison(["a"], [1, 2], {"before": torch.rand(1, 2, 3, 4, 4)}).save(folder)
    secret = tmp_path / "run" / "secret.png"
    save_grid(torch.rand(2, 3, 4, 4), secret, margin=0)
    (folder / "link.png").symlink_to(secret)
    index = json.loads((folder / INDEX).read_text())
    index["columns"]["before"]["sheets"] = [sheet.format(secret=secret)]
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="leads out of"):
        Comparison.load(folder)
