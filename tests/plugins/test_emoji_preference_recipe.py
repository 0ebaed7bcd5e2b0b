"""How the preference and the judge of the emoji world are trained: their groups, samples and losses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dipp_emoji import degrade
from dipp_emoji.captions import is_held_out, pairs
from dipp_emoji.judge import EmojiJudge
from dipp_emoji.recipe.fitting import caption_loss, group_loss, one_cycle
from dipp_emoji.recipe.judge import judge_pairs, train_judge
from dipp_emoji.recipe.ordered import Groups, ModelSamples, load_vae
from dipp_emoji.recipe.preference import train_preference
from dipp_emoji.recipe.vae import build_vae
from dipp_emoji.rewards import EmojiPreference
from dipp_toolkit.errors import RequestError


@pytest.fixture
def sample_folder(tmp_path) -> Path:
    """Forty samples: image k is plain, of the brightness k / 255, and is said to show emoji k."""
    values = torch.arange(40, dtype=torch.uint8)
    rows = {"images": values[:, None, None, None].expand(-1, 3, 64, 64).contiguous()}
    rows |= {"emoji": torch.arange(40), "background": torch.arange(40) % 8}
    (tmp_path / "samples").mkdir()
    save_file(rows, tmp_path / "samples" / "onestep.safetensors")
    return tmp_path / "samples"


@pytest.fixture
def vae_folder(tmp_path) -> Path:
    build_vae().save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def test_reward_and_judge_share_no_samples(sample_folder):
    taken = []
    for half in (0, 1):
        samples = ModelSamples(sample_folder, half)
        parts = (samples.training["onestep"]["emoji"], samples.held["onestep"]["emoji"])
        assert len(parts[0]) == 18 and len(parts[1]) == 2
        taken.append(set(torch.cat(parts).tolist()))
        drawn, drawn_pairs = samples.draw(5, torch.Generator().manual_seed(0))
        assert torch.equal((drawn[:, 0, 0, 0] * 255).round().long(), drawn_pairs[:, 0])
    assert not taken[0] & taken[1]
    with pytest.raises(RequestError, match="There are no samples in"):
        ModelSamples(sample_folder / "nothing", 0)


def test_groups_hold_real_images_and_samples(sample_folder, vae_folder, monkeypatch):
    monkeypatch.setattr("dipp_emoji.recipe.ordered.JITTERS", 1)
    generator = torch.Generator().manual_seed(11)
    table = torch.tensor(pairs(held_out=False))
    groups = Groups(
        table, degrade.DEGRADATIONS, load_vae(vae_folder), ModelSamples(sample_folder, 0), generator, latent_share=0.3
    )
    images, named, trusted = groups.draw(12)
    assert images.shape == (3, 12, 3, 64, 64)
    assert images.min() >= 0 and images.max() <= 1
    assert trusted == 6
    brightness = (images[1, trusted:, 0, 0, 0] * 255).round().long()
    assert torch.equal(brightness, named[trusted:, 0]), "a sample belongs to the pair it is said to show"
    assert not any(is_held_out(i, j) for i, j in named[:trusted].tolist())
    alone = Groups(table, degrade.DEGRADATIONS, groups.vae, None, generator)
    assert alone.draw(4)[2] == 4


@pytest.mark.first_case
@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "reward_class"),
    [(train_preference, EmojiPreference), (train_judge, EmojiJudge)],
    ids=["preference", "judge"],
)
def test_recipe_trains_saves_and_repeats_itself(train, reward_class, sample_folder, vae_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("dipp_emoji.recipe.ordered.JITTERS", 1)
    monkeypatch.setattr("dipp_emoji.recipe.preference.pairs", lambda held_out: pairs(held_out=held_out)[::6])
    monkeypatch.setattr("dipp_emoji.recipe.judge.judge_pairs", lambda seen: judge_pairs(seen)[::6])
    measured = [
        train(tmp_path / name, vae=vae_folder, samples=sample_folder, steps=2, batch=4) for name in ("first", "second")
    ]
    for item in measured:
        del item["seconds"]
        assert all(0 <= value <= 1 for key, value in item.items() if key.startswith(("order/", "naming/")))
    assert measured[0] == measured[1]
    assert {"order/sample/onestep", "order/wrong_emoji", "score/real"} <= set(measured[0])
    first, second = (reward_class(folder=tmp_path / name) for name in ("first", "second"))
    images, prompts = torch.rand(3, 3, 64, 64), ["red apple on white", "an unknown thing", "red apple on green"]
    scores = first(images, prompts)
    assert torch.equal(scores, second(images, prompts))
    assert scores.shape == (3,)


def test_group_loss_wants_order_and_match():
    def parts(image, text):
        return image[..., 0], image[..., 1] * text[..., 0]

    good = torch.tensor([[[2.0, 1.0]], [[0.0, 1.0]], [[-2.0, 1.0]]])
    texts = torch.tensor([[[1.0]], [[-1.0]], [[-1.0]]])
    named = torch.tensor([[[0, 0]], [[1, 0]], [[0, 1]]])
    loss = group_loss(good, texts, parts, named, trusted=1)
    assert loss < group_loss(good.flip(0), texts, parts, named, trusted=1)
    assert loss < group_loss(good, -texts, parts, named, trusted=1)


def test_a_caption_of_the_same_pair_is_no_rival():
    def parts(image, text):
        return image[..., 0], (image * text).sum(-1)

    image = torch.tensor([[1.0, 0.0]])
    texts = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    rival, twin = (torch.tensor([[[0, 0]], [pair], [[0, 1]]]) for pair in ([1, 0], [0, 0]))
    assert caption_loss(image, texts, parts, twin) < caption_loss(image, texts, parts, rival) - 0.3


def test_learning_rate_rises_and_falls():
    rates = [one_cycle(step, 100) for step in range(101)]
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[0] < 0.2
    assert rates[-1] == pytest.approx(0.01)
