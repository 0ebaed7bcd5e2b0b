"""A reward learned on latents: trusted where it agrees with the true one, used in its place, exact on resume."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dipp_toolkit.config import make_config
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.distributed import Processes
from dipp_toolkit.distributed.sharded_state import flatten, restore
from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.objective.base import Committing, Sample, TermResult
from dipp_toolkit.objective.build import build_latent
from dipp_toolkit.objective.estimators.latent import WIDEST, LatentReward
from dipp_toolkit.objective.estimators.smoothing import Smoothing
from dipp_toolkit.objective.mixing.mix import RewardMix
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.objective.terms.shared_decode import SharedDecode
from dipp_toolkit.training.setup.resolve import resolve
from tiny_runs import BLUE, blue_settings, metrics, runs_in, weights

UNSAID = """
def build(context):
    from dipp_toolkit.objective.terms.policy_gradient import build as made
    return made(context)
"""
SHAPE = (3, 4, 4)
WIDTH = 6
NOWHERE = torch.zeros(0, dtype=torch.int64)
SLOPES = torch.randn(WIDTH, 3 * 4 * 4, generator=torch.Generator().manual_seed(5))


def sample_of(step: int, text: int = WIDTH, count: int = 16) -> Sample:
    """Two samples of each prompt; the prompt's embedding is drawn with it."""
    random = torch.Generator().manual_seed(step)
    x0 = torch.randn(count, *SHAPE, generator=random)
    rows = torch.randn(count // 2, 1, text, generator=random).repeat_interleave(2, dim=0)
    tensors = {"encoder_hidden_states": rows.expand(-1, 3, -1)} if text else {}
    prompts = tuple(f"prompt {step} {row // 2}" for row in range(count))
    return Sample(x0, Condition(prompts, tensors), x0, random, step)


class Sloped:
    """A reward whose direction is the prompt's; `condition` is that of the batch under way."""

    differentiable = True

    def __init__(self, noise: bool = False) -> None:
        self.calls, self.scored, self.decodes, self.noise = 0, 0, 0, noise
        self.condition = Condition((), {})

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls += 1
        self.scored += len(images)
        if self.noise:
            slopes = torch.randn(images.shape, generator=torch.Generator().manual_seed(1000 + self.calls))
        else:
            rows = [self.condition.prompts.index(prompt) for prompt in prompts]
            text = self.condition.tensors["encoder_hidden_states"][rows, 0]
            slopes = (F.layer_norm(text, (WIDTH,)) @ SLOPES).reshape(images.shape)
        return 3 + 2 * (slopes * images).flatten(1).sum(1)

    def decode(self, latents: Tensor) -> Tensor:
        self.decodes += len(latents)
        return latents * 1.0


def follow(term: RewardTerm, reward: Sloped, steps: Sequence[int]) -> list[Any]:
    """The results of these updates, each made."""
    results = []
    for step in steps:
        sample = sample_of(step)
        reward.condition = sample.condition
        results.append(term(sample))
        term.commit()
    return results


def term_of(reward: Sloped, **options: Any) -> RewardTerm:
    return RewardTerm("sloped", reward, reward.decode, latent=LatentReward(**options))


def test_it_becomes_trusted_and_spares_decoder_and_reward() -> None:
    reward = Sloped()
    term = term_of(reward)
    results = follow(term, reward, range(42))
    used = [result.details["latent_used"] for result in results]
    assert used[:5] == [0.0] * 5 and sum(used[6:]) / 36 == pytest.approx(2 / 3)  # the first has nothing to be compared
    assert reward.scored == reward.decodes == 16 * (42 - sum(used)) and reward.calls == 42
    assert term.latent is not None and term.latent.rank > 0.9 and term.latent.cosine > 0.9
    assert not any(result.predicted for result in results) and not term.warnings()


def test_what_it_lends_has_the_true_gradients_direction_and_size() -> None:
    reward = Sloped()
    term = term_of(reward)
    follow(term, reward, range(41))
    sample = sample_of(41)
    reward.condition = sample.condition
    lent, true = term(sample), RewardTerm("sloped", reward, reward.decode)(sample)
    assert lent.measured is not None and true.measured is None and term.latent is not None
    assert F.cosine_similarity(lent.measured.flatten(1), true.grad.flatten(1)).mean() > 0.95
    sizes = [gradient.square().mean().sqrt() for gradient in (lent.measured, true.grad)]
    torch.testing.assert_close(*sizes, rtol=0.1, atol=0)
    rows = term.latent.looked_at(sample)
    assert torch.equal(lent.value[rows], true.value[rows])
    torch.testing.assert_close(lent.value.mean(), true.value[rows].mean())
    predicted, _ = term.latent.lend(sample)
    assert (predicted - true.value).abs().mean() < 0.5 * true.value.std()


@pytest.mark.parametrize("cosine", [1.0, 0.3, -0.4])
@pytest.mark.parametrize("count", [16, 12, 2])
def test_gradients_add_up_to_the_true_ones_whatever_stands_in(cosine: float, count: int) -> None:
    """Each sample is looked at in one update of `every`: with what is learned held, the mean over as many is the true
    gradient. A batch of one prompt has updates without a look."""
    latent = LatentReward(every=4, least_rank=-1, least_cosine=-1, cosine=cosine, judged=torch.zeros(2, 64))
    true, lent = torch.randn(2, count, *SHAPE, generator=torch.Generator().manual_seed(7))
    looked, total = [], torch.zeros_like(true)
    for step in range(4):
        rows = latent.looked_at(sample_of(step, count=count))
        total += latent.corrected(lent, torch.tensor(rows), true[rows]) if rows else latent.corrected(lent, NOWHERE)
        looked += rows
    assert sorted(looked) == list(range(count))
    torch.testing.assert_close(total / 4, true, rtol=1e-4, atol=1e-5)


def test_an_update_without_a_look_is_a_prediction() -> None:
    """One of a single prompt has a look in every third."""
    reward = Sloped()
    term = term_of(reward)
    follow(term, reward, range(6))
    results = []
    for step in range(6, 12):
        sample = sample_of(step, count=2)
        reward.condition = sample.condition
        results.append(term(sample))
        term.commit()
    assert [result.predicted for result in results] == [False, True, True, False, True, True]
    assert [result.details["latent_used"] for result in results] == [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]


def test_what_is_not_trusted_gives_the_true_gradient_to_the_bit() -> None:
    reward = Sloped()
    term = term_of(reward, least_cosine=1.0)
    for step in range(8):
        (result,) = follow(term, reward, [step])
        plain = RewardTerm("sloped", reward, reward.decode)(sample_of(step))
        assert torch.equal(result.grad, plain.grad) and result.measured is None


def test_no_look_is_spared_while_a_scale_is_measured() -> None:
    reward = Sloped()
    term = term_of(reward, first=20)
    used = [result.details["latent_used"] for result in follow(term, reward, range(24))]
    assert used[:20] == [0.0] * 20 and min(used[20:]) > 0.5
    config = make_config({"rewards": {"sharpness": 1.0}, "reward_options": {"sharpness": {"latent": True}}})
    for scale, first in (("auto", 16), (80.0, 0)):
        latent = build_latent("sharpness", config.model_copy(update={"reward_scale": scale}))
        assert latent is not None and latent.first == first


def test_sizes_are_measured_of_the_whole_gradient() -> None:
    """One of which half is used does not count as a smaller reward."""
    gradient = torch.ones(2, 3)
    mix = RewardMix("normalised")
    result = TermResult(torch.zeros(2), 0.5 * gradient, measured=gradient)
    mixed = mix({"a": result}, {"a": 1.0}, torch.zeros(2, 3), torch.Generator())
    torch.testing.assert_close(mixed.added["a"], 0.5 * gradient)


def test_noise_is_never_trusted() -> None:
    reward = Sloped(noise=True)
    term = term_of(reward, least_cosine=0.15)
    results = follow(term, reward, range(40))
    assert not any(result.details["latent_used"] or result.predicted for result in results)
    assert reward.calls == 40
    (said,) = term.warnings()
    assert "'sloped' saved little time: its latent stand-in was used in 0 of 40 steps" in said


def test_lost_trust_brings_the_true_reward_back() -> None:
    reward = Sloped()
    term = term_of(reward, least_cosine=0.15)
    follow(term, reward, range(40))
    reward.noise = True
    results = follow(term, reward, range(40, 70))
    assert not any(result.details["latent_used"] for result in results[-10:])


def test_an_update_that_is_dropped_leaves_no_trace() -> None:
    reward = Sloped()
    term = term_of(reward)
    follow(term, reward, range(3))
    before = copy.deepcopy(term.state_dict())
    reward.condition = sample_of(3).condition
    term(sample_of(3))
    term.discard()
    term.commit()
    torch.testing.assert_close(term.state_dict(), before, rtol=0, atol=0)
    assert isinstance(term.latent, Committing)


def test_it_goes_on_where_it_stopped() -> None:
    reward = Sloped()
    whole, resumed = term_of(reward), term_of(reward)
    follow(whole, reward, range(18))
    tensors: dict[str, Tensor] = {}
    resumed.load_state_dict(restore(flatten(whole.state_dict(), "", tensors, {}, torch.clone), tensors))
    assert whole.latent is not None and whole.latent.is_trusted
    for a, b in zip(*(follow(term, reward, range(18, 24)) for term in (whole, resumed)), strict=True):
        assert torch.equal(a.grad, b.grad) and torch.equal(a.value, b.value) and a.details == b.details
    torch.testing.assert_close(whole.state_dict(), resumed.state_dict(), rtol=0, atol=0)


class Twins(Processes):
    """Two processes with the same rows."""

    def mean(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor])


def test_parts_and_processes_learn_as_one() -> None:
    reward = Sloped()
    once, parted, twins = (term_of(reward, processes=kind) for kind in (Processes(), Processes(), Twins(0, 2)))
    for step in range(3):
        sample = sample_of(step)
        rows = list(range(len(sample.x0)))
        for term, parts in ((once, [rows * 2]), (parted, [rows, rows]), (twins, [rows])):
            for part in parts:
                reward.condition = sample.condition[part]
                term(replace(sample, x0=sample.x0[part], noise=sample.noise[part], condition=reward.condition))
            term.commit()
    for term in (parted, twins):
        torch.testing.assert_close(term.state_dict(), once.state_dict(), rtol=1e-4, atol=1e-4)


def test_long_embeddings_are_projected_and_no_prompt_is_a_constant() -> None:
    for text, width in ((2 * WIDEST, WIDEST), (0, 0)):
        latent = LatentReward()
        for step in range(2):
            sample = sample_of(step, text)
            latent.look(sample, sample.x0.flatten(1).sum(1), torch.ones_like(sample.x0))
            latent.commit()
        assert latent.gram is not None and latent.gram.shape == (1 + width, 1 + width)
        _, gradient = latent.lend(sample_of(2, text))
        torch.testing.assert_close(gradient.square().mean(), torch.tensor(1.0))


@pytest.mark.parametrize("lent_first", [True, False])
def test_a_spared_decode_keeps_no_graph(lent_first: bool) -> None:
    shared = SharedDecode(lambda latents: latents * 2, users=2)
    latents = torch.randn(2, 3)
    if lent_first:
        shared.spared(latents)
    decoded = shared.decoded(latents)
    decoded.pull_back(torch.ones(2, 3))
    if not lent_first:
        shared.spared(latents)
    assert decoded.waiting == 0 and shared._decoded is None and shared._latents is None
    assert shared.decoded(latents.clone()).waiting == 2


def test_a_part_is_decoded_once_for_those_that_look_at_it() -> None:
    """And its graph is gone once they have, whatever others look at."""
    reward = Sloped()
    shared = SharedDecode(reward.decode, users=3)
    terms = [RewardTerm(name, reward, shared, latent=LatentReward()) for name in "ab"]
    terms.append(RewardTerm("c", reward, shared))
    for step in range(6):
        sample = sample_of(step)
        reward.condition, reward.decodes = sample.condition, 0
        for term in (terms[2], *terms[:2]):
            term(sample)
            term.commit()
    assert reward.decodes == 16 + 6 and shared._decoded is None


def test_a_black_box_is_refused() -> None:
    reward = Sloped()
    reward.differentiable = False
    term = RewardTerm("sloped", reward, reward.decode, estimator=Smoothing(), latent=LatentReward())
    with pytest.raises(RunError, match="has no gradient, so latent=true has nothing to learn it from"):
        term(sample_of(0))


def test_off_is_the_reward_alone() -> None:
    """The option never reaches the reward."""
    options = {"sharpness": {"latent": False}, "colourfulness": {"latent": True, "size": 4}}
    config = make_config({"rewards": {"sharpness": 1.0, "colourfulness": 1.0}, "reward_options": options})
    assert build_latent("sharpness", config) is None and build_latent("colourfulness", config) is not None
    assert config.options_of("sharpness") == {} and config.options_of("colourfulness") == {"size": 4}


def test_a_run_in_two_parts_has_the_bits_of_one(tmp_path: Path) -> None:
    """And its log has scores alone where each update looks at some samples."""
    settings = blue_settings(tmp_path, BLUE, steps=6, batch_size=32, checkpoint_every=4)
    (reward,) = settings["rewards"]
    on = {"reward_options": {reward: {"latent": True}}, "latent_rank": -1.0, "latent_cosine": -1.0}
    run = runs_in(tmp_path, settings | on)
    whole, parts = run("whole"), run("parts", steps=4)
    run("parts", resume=True)
    assert metrics(whole) == metrics(parts)
    first, second = weights(whole, 6), weights(parts, 6)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    used = [row[f"latent_used/reward/{reward}"] for row in metrics(whole)]
    assert used == [0, 0, 0] + [1 - rows / 32 for rows in (12, 10, 10)]
    assert all(f"reward/{reward}" in row and f"latent_score/reward/{reward}" not in row for row in metrics(whole))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reward_options": {"sharpness": {"latent": "perhaps"}}}, "expected true or false"),
        ({"reward_options": {"colourfulness": {"latent": True}}, "floors": {"colourfulness": 0.5}}, "has a floor"),
        ({"reward_options": {"emoji-judge": {"latent": True}}}, "this run does not train on it"),
        ({"rewards": {"jpeg": 1.0}, "reward_options": {"jpeg": {"latent": True}}}, "'jpeg' has no gradient"),
        (
            {"reward_options": {"sharpness": {"latent": True}}, "term": "policy_gradient"},
            "'policy_gradient' uses the true scores of rewards alone",
        ),
    ],
)
def test_what_makes_no_sense_gets_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        resolve(make_config({"generator": "emoji-onestep", "rewards": {"sharpness": 1.0}, **changes}))


def test_scores_alone_are_not_learned_where_a_factory_does_not_say_what_it_makes(tmp_path: Path) -> None:
    (tmp_path / "unsaid.py").write_text(UNSAID)
    settings = blue_settings(tmp_path, BLUE, term=f"{tmp_path / 'unsaid.py'}:build")
    (reward,) = settings["rewards"]
    with pytest.raises(RequestError, match="uses the true scores of rewards alone"):
        runs_in(tmp_path, settings)("run", reward_options={reward: {"latent": True}})
