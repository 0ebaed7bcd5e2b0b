"""The folder of a fitted reward is a reward wherever a reward's name is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dipp_toolkit import TrainConfig
from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.bench.score_cache import version_of
from dipp_toolkit.preferences.fit.run import fit_reward
from dipp_toolkit.preferences.fit.trainer import FitSettings
from dipp_toolkit.protocols import Identified, Reward
from dipp_toolkit.rewards.checks.run import check_reward
from dipp_toolkit.rewards.facts import facts_of
from dipp_toolkit.rewards.loading import files_of, find_reward, load_reward
from dipp_toolkit.training.run import train
from dipp_toolkit.training.setup.name_checks import check_rewards
from tiny_runs import tiny_world
from warm_votes import IMAGES, painted, warm_votes

pytest.importorskip("trl")
PROMPTS = ["a cat"] * 2 * IMAGES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fit") / "my-reward"
    return fit_reward(warm_votes(8), place, backbone="emoji-clip", settings=FitSettings(steps=40), ensemble=2).folder


def test_it_passes_the_checks_of_rewards(folder: Path) -> None:
    rows = check_reward(load_reward(str(folder)), str(folder), device=torch.device("cpu"), size=64, seed=0)
    assert [row.name for row in rows if row.status == "failed"] == []
    # Edges and colourfulness have kinks, and without gradients images are resized to the bit as Pillow does it.
    assert {row.name for row in rows if row.status == "warning"} <= {"gradient is right", "repeats"}


def test_it_is_a_reward_of_float32_with_a_gradient(folder: Path) -> None:
    reward = load_reward(str(folder))
    assert isinstance(reward, Reward) and reward.differentiable
    images = painted(2).flatten(0, 1).requires_grad_(True)
    scores = reward(images, PROMPTS)
    scores.sum().backward()
    assert scores.dtype == torch.float32
    assert images.grad is not None and images.grad.isfinite().all() and (images.grad != 0).any()


def test_options_reach_it(folder: Path) -> None:
    assert load_reward(str(folder), batch=2).batch == 2
    with pytest.raises(RequestError, match="no such option"):
        find_reward(str(folder), version="v2")


def test_facts_are_those_of_fitted_rewards(folder: Path) -> None:
    facts = facts_of(str(folder))
    assert facts.missing == []
    assert facts.name == str(folder)


def test_a_relative_path_beside_other_rewards_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    check_rewards(["sharpness", "./my-reward", "my-reward"])
    images = painted(2).flatten(0, 1)
    assert torch.equal(load_reward("my-reward")(images, PROMPTS), load_reward(str(folder))(images, PROMPTS))


def test_a_registered_name_means_the_registered_reward(folder: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(folder, tmp_path / "sharpness")
    monkeypatch.chdir(tmp_path)
    assert type(load_reward("sharpness")).__module__.startswith("dipp_pixels")
    assert type(load_reward("./sharpness")).__module__ == "dipp_fitted.reward"


@pytest.mark.parametrize("name", ["./nowhere", "runs/nowhere"])
def test_a_path_without_one_is_a_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for look in (lambda: check_rewards([name]), lambda: find_reward(name), lambda: facts_of(name)):
        with pytest.raises(RequestError, match=r"no reward named .*nowhere.*: nothing is there"):
            look()


def test_the_bare_name_says_that_it_wants_a_folder() -> None:
    with pytest.raises(RequestError, match=r"as in --reward ./my-reward"):
        load_reward("fitted")


def test_a_folder_that_is_not_whole_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    with pytest.raises(RequestError, match=r"not whole: it has no model\.safetensors"):
        load_reward(str(broken))
    shutil.copy(folder / "backbone" / "model.safetensors", broken)
    with pytest.raises(RequestError, match=r"does not fit config\.json"):
        load_reward(str(broken))
    (broken / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(RequestError, match="not that of a fitted reward"):
        load_reward(str(broken))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "bert"), ("kind", []), ("width", 0), ("width", "96"), ("embedding", 2**40), ("members", True),
        ("members", 65), ("lora_rank", -1), ("image_mean", [0.5]), ("image_std", [[], [], []]), ("backbone", None),
        ("backbone", {"hub": "../..", "revision": "main"}), ("backbone", {"hub": "a/b", "revision": "main"}),
    ],
)  # fmt: skip
def test_a_strangers_configuration_is_a_sentence(folder: Path, tmp_path: Path, name: str, value: object) -> None:
    strange = shutil.copytree(folder, tmp_path / "strange")
    config = json.loads((folder / "config.json").read_text())
    (strange / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(RequestError, match="not that of a fitted reward"):
        find_reward(str(strange))
        load_reward(str(strange))


def test_a_published_backbone_is_noted_in_a_dry_run(folder: Path, tmp_path: Path) -> None:
    from dipp_toolkit.models.files.fetching import without_fetching

    published = shutil.copytree(folder, tmp_path / "published")
    config = json.loads((folder / "config.json").read_text())
    backbone = {"hub": "nobody/nothing-of-this-name", "revision": "0" * 40}
    (published / "config.json").write_text(json.dumps(config | {"backbone": backbone}))
    with without_fetching() as noted:
        files_of(find_reward(str(published)), {})
    assert list(noted) == ["config.json of huggingface.co/nobody/nothing-of-this-name"]


@pytest.mark.parametrize(
    "file", ["model.safetensors", "backbone/model.safetensors", "preprocessor_config.json", "tokenizer.json"]
)
def test_what_scores_depend_on_is_part_of_their_key(folder: Path, tmp_path: Path, file: str) -> None:
    same, other = (shutil.copytree(folder, tmp_path / name / "my-reward") for name in ("same", "other"))
    text = (other / file).read_bytes()
    changed = text[:-1] + bytes([text[-1] ^ 1]) if file.endswith(".safetensors") else text + b"\n"
    (other / file).write_bytes(changed)
    rewards = [load_reward(str(place)) for place in (folder, same, other)]
    assert all(isinstance(reward, Identified) for reward in rewards)
    first, again, different = (reward.score_identity() for reward in rewards)
    assert first == again != different
    versions = [version_of("my-reward", {}, reward) for reward in rewards]
    assert versions[0] == versions[1] != versions[2]


def test_its_files_are_found_without_loading_them(folder: Path) -> None:
    make = find_reward(str(folder))
    names = {path.relative_to(folder).as_posix() for path in files_of(make, {}) or []}
    assert {"model.safetensors", "backbone/model.safetensors", "config.json", "tokenizer.json"} <= names


def test_a_training_maximises_it_watches_its_doubt_and_resumes(folder: Path, tmp_path: Path) -> None:
    settings = {
        **tiny_world(tmp_path), "rewards": {str(folder): 1.0}, "batch_size": 2, "eval_count": 2, "reference_steps": 1,
        "checkpoint_every": 1, "sample_every": 20, "monitor_every": 1, "device": "cpu", "out": tmp_path / "run",
    }  # fmt: skip
    train(TrainConfig(**settings, steps=1))
    train(TrainConfig(**settings, steps=2, resume=True))
    rows = [json.loads(line) for line in (tmp_path / "run" / "monitors.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(row["rewards"][f"agreement/{folder}"]["mean"] < 0 for row in rows)


def test_a_resume_with_other_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(folder, tmp_path / "mine")
    settings = {
        **tiny_world(tmp_path), "rewards": {str(mine): 1.0}, "batch_size": 2, "eval_count": 2, "reference_steps": 1,
        "checkpoint_every": 1, "sample_every": 20, "device": "cpu", "out": tmp_path / "run",
    }  # fmt: skip
    train(TrainConfig(**settings, steps=1))
    shutil.rmtree(mine)
    fit_reward(warm_votes(8, seed=5), mine, backbone="emoji-clip", settings=FitSettings(steps=5), ensemble=2)
    with pytest.raises(RequestError, match="mine"):
        train(TrainConfig(**settings, steps=2, resume=True))
