"""A reward fitted to votes by TRL's own trainer knows the preference, says how well, and changes nothing else."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dipp_toolkit.errors import RequestError
from dipp_toolkit.preferences.fit import trainer
from dipp_toolkit.preferences.fit.run import FitResult, fit_reward
from dipp_toolkit.preferences.fit.trainer import FitSettings
from dipp_toolkit.preferences.fit.votes import votes_from
from dipp_toolkit.preferences.pair import Candidate, Comparison, PictureFile
from dipp_toolkit.rewards.loading import load_reward
from warm_votes import IMAGES, SHORT, agreement_with_warmth, painted, prompt_of, warm_votes

trl = pytest.importorskip("trl")
PACKAGE = Path(trainer.__file__).parent


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    folder = tmp_path_factory.mktemp("fit") / "reward"
    return fit_reward(asked_again(), folder, backbone="emoji-clip", settings=SHORT)


def asked_again() -> list[Comparison]:
    """Votes of which the first ten are asked about again; one of these is answered otherwise."""
    votes = warm_votes()
    again = [replace(vote, repeat=True) for vote in votes[:10]]
    return [*votes, replace(again[0], outcome=1 - again[0].outcome), *again[1:]]


def weights_of(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_it_orders_images_of_other_prompts_as_the_voter_would(fitted: FitResult) -> None:
    assert agreement_with_warmth(load_reward(str(fitted.folder))) >= 0.8


def test_agreement_is_measured_on_prompts_held_out(fitted: FitResult) -> None:
    held = fitted.held_out
    assert held is not None
    assert (held.prompts, held.votes) == (4, 12)
    assert held.accuracy.mean >= 0.75
    assert 0 <= held.accuracy.low <= held.accuracy.mean <= held.accuracy.high <= 1
    assert sum(bin.votes for bin in held.calibration) == 12


def test_scores_are_log_odds_with_mean_0_over_the_images_of_the_fit(tmp_path: Path) -> None:
    result = fit_reward(warm_votes(8), tmp_path / "reward", backbone="emoji-clip", settings=SHORT, held_out=0)
    images = painted(8).flatten(0, 1)
    scores = load_reward(str(tmp_path / "reward"))(images, [prompt_of(row // IMAGES) for row in range(len(images))])
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    within = (scores.reshape(-1, IMAGES) - scores.reshape(-1, IMAGES).mean(1, keepdim=True)).square().sum()
    expected = (within / (len(scores) - len(scores) // IMAGES)).sqrt().item()
    assert result.facts["deviation_within_prompts"] == pytest.approx(expected, rel=1e-4)


def test_the_same_seed_gives_the_same_bits(fitted: FitResult, tmp_path: Path) -> None:
    torch.rand(7)
    again = fit_reward(asked_again(), tmp_path / "again", backbone="emoji-clip", settings=SHORT)
    other = fit_reward(warm_votes(), tmp_path / "other", backbone="emoji-clip", settings=SHORT, seed=1)
    assert weights_of(again.folder) == weights_of(fitted.folder)
    assert weights_of(other.folder) != weights_of(fitted.folder)
    assert again.facts["data"] == fitted.facts["data"]


def test_nothing_global_is_different_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.state import AcceleratorState, PartialState

    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    def state() -> list[object]:
        shared = [dict(kind._shared_state) for kind in (PartialState, AcceleratorState)]
        numpy = np.random.get_state(legacy=True)
        return [torch.get_rng_state().tolist(), random.getstate(), numpy[1].tolist(), dict(os.environ), shared]

    before = state()
    fit_reward(warm_votes(6), tmp_path / "reward", backbone="emoji-clip", settings=FitSettings(steps=3))
    assert state() == before
    assert list((tmp_path / "cwd").iterdir()) == []


def test_the_trainer_is_trls_own(fitted: FitResult) -> None:
    assert trl.RewardTrainer.compute_loss.__module__ == "trl.trainer.reward_trainer"
    assert trl.RewardTrainer.__subclasses__() == []
    classes = [
        node
        for path in PACKAGE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert classes
    assert [kind.name for kind in classes if any("Trainer" in ast.unparse(base) for base in kind.bases)] == []
    history = json.loads((fitted.folder / "trainer_state.json").read_text())["log_history"]
    assert {"loss", "accuracy", "margin", "mean_reward"} <= history[0].keys()


def test_the_folder_is_whole_in_itself(fitted: FitResult, tmp_path: Path) -> None:
    elsewhere = tmp_path / "moved"
    shutil.copytree(fitted.folder, elsewhere)
    images, prompts = painted(2).flatten(0, 1), ["a cat"] * 2 * IMAGES
    assert torch.equal(load_reward(str(elsewhere))(images, prompts), load_reward(str(fitted.folder))(images, prompts))
    names = {path.name for path in elsewhere.iterdir()}
    assert {
        "config.json", "model.safetensors", "backbone", "tokenizer.json", "preprocessor_config.json", "fit.json",
        "README.md", "trainer_state.json",
    } == names - {"tokenizer_config.json", "special_tokens_map.json"}  # fmt: skip
    written = "".join(path.read_text() for path in elsewhere.rglob("*.json"))
    assert str(fitted.folder.parent) not in written and str(PACKAGE.parents[2]) not in written


def test_the_card_has_the_numbers(fitted: FitResult) -> None:
    card = (fitted.folder / "README.md").read_text()
    assert fitted.held_out is not None
    assert f"{100 * fitted.held_out.accuracy.mean:.1f} % [" in card
    assert "agree with themselves, asked again, on 90.0 %" in card
    assert card.startswith("---\n")


def test_an_ensemble_doubts_and_a_single_one_does_not_say(fitted: FitResult, tmp_path: Path) -> None:
    from dipp_toolkit.protocols import Doubting

    fit_reward(warm_votes(), tmp_path / "three", backbone="emoji-clip", settings=FitSettings(steps=30), ensemble=3)
    reward = load_reward(str(tmp_path / "three"))
    images, prompts = painted(2).flatten(0, 1), ["a cat"] * 2 * IMAGES
    assert isinstance(reward, Doubting)
    assert not isinstance(load_reward(str(fitted.folder)), Doubting)
    assert (reward.doubt(images, prompts) > 1e-3).all()
    assert agreement_with_warmth(reward) >= 0.8


def test_adapters_are_kept_beside_the_backbone_and_merged_when_loaded(tmp_path: Path) -> None:
    settings = FitSettings(steps=20, lora_rank=2, learning_rate=1e-2)
    result = fit_reward(warm_votes(8), tmp_path / "adapted", backbone="emoji-clip", settings=settings)
    assert str(PACKAGE.parents[2]) not in (tmp_path / "adapted" / "adapter-0" / "adapter_config.json").read_text()
    tensors = (tmp_path / "adapted" / "adapter-0" / "adapter_model.safetensors").stat().st_size
    assert tensors < (tmp_path / "adapted" / "backbone" / "model.safetensors").stat().st_size / 10
    reward = load_reward(str(tmp_path / "adapted"))
    plain = load_reward("emoji-clip").model.vision_model.state_dict()
    own = reward.network.first.backbone.vision_model.state_dict()
    changed = {name for name in plain if not torch.equal(plain[name], own[name])}
    assert changed and all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in changed)
    assert agreement_with_warmth(reward) >= 0.75
    assert result.held_out is not None


def test_ties_and_repeated_questions_are_left_out_and_counted() -> None:
    said = warm_votes(6)
    extra = [replace(said[0], outcome=0.5), replace(said[1], repeat=True, outcome=1 - said[1].outcome)]
    votes = votes_from([*said, *extra], 0.5, 0)
    assert (len(votes.chosen), votes.ties, votes.repeats) == (len(said), 1, 1)
    held = {votes.prompt_of(row) for row in votes.rows(True)}
    assert len(held) == 3
    assert held.isdisjoint(votes.prompt_of(row) for row in votes.rows(False))


def without(seed: int = 0) -> list[Comparison]:
    one = Candidate(0, "a cat", "", PictureFile(Path("gone.png")))
    other = Candidate(1, "a cat", "", PictureFile(Path("gone-too.png")))
    return [Comparison(one, other, 1.0, "v")]


@pytest.mark.parametrize(
    ("comparisons", "options", "sentence"),
    [
        ([], {}, "There are no votes"),
        ([replace(vote, outcome=0.5) for vote in warm_votes(4)], {}, "All 12 votes are ties"),
        (warm_votes(3), {}, "on 3 prompts, too few to hold any out"),
        (without(), {"held_out": 0}, "There is no image gone.png"),
        (warm_votes(6), {"held_out": 1.0}, "--held-out is 1"),
        (warm_votes(6), {"ensemble": 0}, "--ensemble is 0"),
        (warm_votes(6), {"settings": FitSettings(steps=0)}, "--steps is 0"),
        (warm_votes(6), {"settings": FitSettings(steps=3, epochs=1)}, "not both"),
        (warm_votes(6), {"settings": FitSettings(learning_rate=-1)}, "--learning-rate is -1"),
    ],
)
def test_bad_input_is_a_sentence(comparisons: list[Comparison], options: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=sentence):
        fit_reward(comparisons, tmp_path / "reward", backbone="emoji-clip", **options)
    assert list(tmp_path.iterdir()) == []


def test_without_trl_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "missing_of", list)
    monkeypatch.setattr("dipp_toolkit.utils.packages.extras_of", lambda _: {"fit": frozenset({"trl"})})
    with pytest.raises(RequestError, match=r"pip install 'dipp-toolkit\[fit\]'"):
        fit_reward(warm_votes(6), tmp_path / "reward", backbone="emoji-clip")


def test_a_folder_of_something_else_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(RequestError, match="holds no fitted reward; name another place with --out"):
        fit_reward(warm_votes(6), tmp_path, backbone="emoji-clip")
    assert (tmp_path / "letter.txt").read_text() == "mine"
