"""The surrogate learns what tells samples of one prompt apart, is trusted for that alone, and moves once an update."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.black_box.prompt_offsets import PromptOffsets, curved, learn
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.distributed.sharded_state import flatten, restore
from dipp_toolkit.objective.base import Committing, Sample
from dipp_toolkit.objective.estimators.memory import KEYS, SCORES, Memory, Pairs, neighbours, prompt_key
from dipp_toolkit.objective.estimators.surrogate import ENOUGH, Surrogate, SurrogateNetwork, pooled
from dipp_toolkit.utils.rank_correlation import rank_correlation

SHAPE = (4, 8, 8)
Score = Callable[[Tensor, Sequence[str]], Tensor]


def sample_of(prompts: Sequence[str], seed: int = 0, text: bool = False) -> Sample:
    random = torch.Generator().manual_seed(seed)
    x0 = torch.randn(len(prompts), *SHAPE, generator=random)
    tensors = {"encoder_hidden_states": torch.randn(len(prompts), 3, 6, generator=random)} if text else {}
    return Sample(x0, Condition(tuple(prompts), tensors), x0, random)


def pairs_of(count: int, first: int = 0) -> list[str]:
    """Two of each prompt."""
    return [f"prompt {number // 2}" for number in range(2 * first, 2 * (first + count))]


def brightness(x0: Tensor, prompts: Sequence[str]) -> Tensor:
    return x0[:, 1].mean((1, 2))


def follow(surrogate: Surrogate, updates: int, score: Score = brightness, seed: int = 0, text: bool = False) -> list:
    """The gradients lent in updates of eight prompts."""
    gradients = []
    for k in range(updates):
        gradients.append(surrogate.estimate(sample_of(pairs_of(8), seed + k, text), score).gradient)
        surrogate.commit()
    return gradients


def test_prompts_that_differ_more_than_their_images_hide_nothing() -> None:
    """Offsets of 1 between prompts, 0.1 within: a fit to the scores themselves reached a cosine of 0.1 here."""
    learned = learn(PromptOffsets(shape=curved), Surrogate(), updates=30)
    assert learned.cosine > 0.55
    assert learned.correlation > 0.6 and learned.trusted >= 5
    assert 0.3 < learned.length < 1.2


def test_it_is_trusted_where_a_pass_has_one_sample() -> None:
    """Four pairs an update, each in two passes."""
    world = PromptOffsets(shape=lambda latents, _: brightness(latents, ()))
    learned = learn(world, Surrogate(), updates=24, batch=1, accumulation=8)
    assert learned.cosine > 0.6
    assert learned.trusted >= 5


def test_telling_prompts_apart_earns_no_trust() -> None:
    """The score is a function of the prompt alone, up to noise."""
    random = torch.Generator().manual_seed(3)

    def score(x0: Tensor, prompts: Sequence[str]) -> Tensor:
        offsets = torch.tensor([float(prompt.split()[1]) for prompt in prompts])
        return offsets + 0.1 * torch.randn(len(prompts), generator=random)

    surrogate = Surrogate(rounds=2)
    gradients = follow(surrogate, 12, score, text=True)
    assert surrogate.judged.shape[1] >= ENOUGH and abs(surrogate.correlation) < 0.4
    assert not gradients[-1].any()
    (said,) = surrogate.warnings()
    assert "was trusted in 0 of 12 steps" in said and "within a prompt" in said


def test_passes_and_processes_see_the_network_of_the_updates_before() -> None:
    """Nothing moves before `commit`; what is discarded leaves no trace."""
    surrogate = Surrogate(rounds=2, trust=-1.0)
    follow(surrogate, 5)
    before = copy.deepcopy(surrogate.state_dict())
    sample = sample_of(pairs_of(4))
    once = surrogate.estimate(sample, brightness).gradient
    again = surrogate.estimate(sample, brightness).gradient
    assert once.any() and torch.equal(once, again)
    surrogate.discard()
    surrogate.commit()
    torch.testing.assert_close(surrogate.state_dict(), before, rtol=0, atol=0)
    assert isinstance(surrogate, Committing)


def test_one_pass_or_many_learn_the_same() -> None:
    sample = sample_of(pairs_of(6))
    whole, parted = Surrogate(rounds=2), Surrogate(rounds=2)
    whole.estimate(sample, brightness)
    for row in range(12):
        x0 = sample.x0[row : row + 1]
        parted.estimate(Sample(x0, sample.condition[[row]], x0, sample.random), brightness)
    whole.commit()
    parted.commit()
    torch.testing.assert_close(whole.state_dict(), parted.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("text", [False, True])
def test_it_goes_on_where_it_stopped(text: bool) -> None:
    whole = Surrogate(rounds=2, trust=-1.0)
    follow(whole, 5, text=text)
    resumed = Surrogate(rounds=2, trust=-1.0)
    tensors: dict[str, Tensor] = {}
    resumed.load_state_dict(restore(flatten(whole.state_dict(), "", tensors, {}, torch.clone), tensors))
    both = [follow(item, 2, seed=10, text=text) for item in (whole, resumed)]
    assert all(a.any() and torch.equal(a, b) for a, b in zip(*both, strict=True))
    torch.testing.assert_close(whole.state_dict(), resumed.state_dict(), rtol=0, atol=0)


def test_an_unused_one_has_no_state() -> None:
    assert Surrogate().state_dict() == {}
    fresh = Surrogate()
    fresh.load_state_dict({})
    assert fresh.network is None and not fresh.restarted


def test_a_checkpoint_without_prompts_begins_again_and_says_so() -> None:
    old = {"network": {}, "optimizer": {}, "memory": {"x0": torch.zeros(1)}, "count": 1, "correlation": 0.9}
    surrogate = Surrogate(rounds=1)
    surrogate.load_state_dict({**old, "batches": 4, "trusted": 3})
    assert surrogate.network is None and surrogate.correlation == 0
    follow(surrogate, 2)
    resumed = Surrogate(rounds=1)
    resumed.load_state_dict(surrogate.state_dict())
    assert "It began again where the run went on" in resumed.warnings()[0]


def test_a_prompt_whose_second_sample_comes_in_the_next_update_is_judged_with_it() -> None:
    """Batches of one: a sample waits one update for its partner, and is not learned from before."""
    surrogate = Surrogate(rounds=1)
    sizes, judged = [], []
    for update, prompt in enumerate(["a", "a", "b", "b", "c", "d"]):
        surrogate.estimate(sample_of([prompt], seed=update), brightness)
        surrogate.commit()
        sizes.append(len(surrogate.memory))
        judged.append(surrogate.judged.shape[1])
    assert sizes == [0, 2, 2, 4, 4, 5]  # c waited for one update in vain, d waits
    assert judged == [0, 0, 0, 1, 1, 1]  # a's were seen by a network that had learned nothing


def test_samples_of_different_readouts_are_no_pair() -> None:
    surrogate = Surrogate(rounds=1)
    sample = sample_of(["a", "b"])
    for readout in range(2):
        surrogate.estimate(replace(sample, readout=readout), brightness)
    surrogate.commit()
    assert len(surrogate.memory) == 0


def test_latents_that_are_no_pictures_are_learned_from_as_well() -> None:
    surrogate, slope = Surrogate(rounds=20, trust=-1.0), torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0])
    for update in range(12):
        x0 = torch.randn(16, 5, generator=torch.Generator().manual_seed(update))
        sample = Sample(x0, Condition(tuple(pairs_of(8))), x0, torch.Generator())
        lent = surrogate.estimate(sample, lambda x0, prompts: x0 @ slope).gradient
        surrogate.commit()
    assert lent.shape == x0.shape and lent.any()
    assert surrogate.correlation > 0.7


@pytest.mark.parametrize("shape", [(3, 10, 6), (16, 2, 2), (4, 64, 64)])
def test_it_takes_latents_of_any_size(shape: tuple[int, ...]) -> None:
    assert SurrogateNetwork(shape[0], 0)(torch.randn(2, *shape), None).shape == (2,)


def test_padding_does_not_count() -> None:
    """One prompt padded to two lengths is one vector; a prompt's own embedding is read where there is one."""
    tokens = torch.randn(2, 6, 4)
    tokens[:, 3:] = 0
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]])
    masked = {"encoder_hidden_states": tokens, "encoder_attention_mask": mask}
    short = {"encoder_hidden_states": tokens[:, :3], "encoder_attention_mask": mask[:, :3]}
    found = pooled(Condition(("a", "b"), masked))
    torch.testing.assert_close(found, pooled(Condition(("a", "b"), short)))
    torch.testing.assert_close(found, torch.stack([tokens[0, :3].mean(0), tokens[1, :2].mean(0)]))
    torch.testing.assert_close(pooled(Condition(("a", "b"), {"encoder_hidden_states": tokens})), tokens.mean(1))
    whole = torch.randn(2, 3)
    for name in ("pooled_projections", "text_embeds"):
        assert torch.equal(pooled(Condition(("a", "b"), {"encoder_hidden_states": tokens, name: whole})), whole)
    assert pooled(Condition(("a", "b"))) is None


def test_the_memory_forgets_the_oldest() -> None:
    memory = Memory(size=4)
    for start in (0, 3):
        memory.add({SCORES: torch.arange(start, start + 3).float()})
    assert len(memory) == 4
    assert sorted(memory.rows[SCORES].tolist()) == [2.0, 3.0, 4.0, 5.0]
    memory.add({SCORES: torch.arange(9).float()})
    assert sorted(memory.rows[SCORES].tolist()) == [5.0, 6.0, 7.0, 8.0]


def test_pairs_are_of_one_prompt_and_their_deviation_is_within_it() -> None:
    keys = [prompt_key(prompt) for prompt in "aabbcccd"]
    scores = torch.tensor([0.0, 2.0, 10.0, 12.0, 20.0, 22.0, 24.0, 99.0])
    pairs = Pairs.among({KEYS: torch.tensor(keys), SCORES: scores})
    # Half the mean squared difference from a partner: 2, 2, 2, 2, and of the three of c 5, 2, 5; d has none.
    assert pairs.deviation.item() == pytest.approx((20 / 7) ** 0.5)
    random, drawn = torch.Generator().manual_seed(0), Counter()
    for _ in range(200):
        first, second = pairs.draw(7, random)
        assert sorted(first.tolist()) == list(range(7))
        assert all(keys[a] == keys[b] and a != b for a, b in zip(first.tolist(), second.tolist(), strict=True))
        drawn.update(zip(first.tolist(), second.tolist(), strict=True))
    assert all(60 < drawn[pair] < 140 for pair in [(4, 5), (4, 6), (5, 4), (5, 6), (6, 4), (6, 5)])
    first, second = pairs.draw(8, random)
    assert (first[-1].item(), second[-1].item()) == (7, 7)  # alone: a difference of 0, which teaches nothing
    assert neighbours(keys) == ([0, 2, 4, 5], [1, 3, 5, 6])


def test_the_key_of_a_prompt_is_the_same_for_ever() -> None:
    assert prompt_key("a cat") == prompt_key("a cat") != prompt_key("a dog")
    assert prompt_key("a cat") == 3566743826402710589
    assert prompt_key("a cat", 1) != prompt_key("a cat")


def test_rank_correlation_of_pairs_has_no_order() -> None:
    differences = torch.tensor([0.5, -1.0, 2.0])
    both = torch.cat([differences, -differences])
    assert rank_correlation(both, both) == pytest.approx(1)
