"""Runs whose images are not the configuration's square: which size each update has, and what becomes of it."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from dipp_cli.app import main
from dipp_toolkit import RequestError, load_generator
from dipp_toolkit.config import make_config
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.distributed import Processes
from dipp_toolkit.errors import Interrupted, RunError
from dipp_toolkit.models.buckets import Buckets
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.planning.estimate import make_plan
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.rewards.preprocess import Preprocess
from dipp_toolkit.training.engine import Engine
from dipp_toolkit.training.run import train
from dipp_toolkit.training.setup.given_parts import GivenPart, lent
from dipp_toolkit.training.setup.preflight import Parts, check_networks, preflight
from dipp_toolkit.training.setup.resolve import resolve
from tiny_runs import StopAt, assert_same_bits, file_of_prompts, metrics

SD, PIXART = "StableDiffusionPipeline", "PixArtAlphaPipeline"
ASPECTS = "3:2,1:1,2:3"
SIZES = ((12, 20), (16, 16), (20, 12))
"""Latents of these aspects at 32 pixels."""

BLUE = "def blue(images, prompts):\n    return images[:, 2].mean((1, 2)) - images[:, :2].mean((1, 2, 3))\n"
BLACK = "def black(images, prompts):\n    return 1 - images.detach().mean((1, 2, 3))\n"
DECLARED = BLACK + "black.differentiable = False\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Settings of a run on the twin of a class, at three aspects."""
    folder = tmp_path_factory.mktemp("sizes")
    (folder / "blue.py").write_text(BLUE)
    (folder / "black.py").write_text(BLACK)
    (folder / "declared.py").write_text(DECLARED)

    def of(kind: str, **more: Any) -> dict[str, Any]:
        twin = folder / kind
        if not twin.exists():
            write_twin(kind, twin)
        return {
            "generator": str(twin), "reference": str(twin), "prompts": str(file_of_prompts(folder)),
            "rewards": {f"{folder}/blue.py:blue": 1.0}, "batch_size": 2, "eval_count": 2, "reference_steps": 1,
            "learning_rate": 1e-3, "lora_rank": 2, "checkpoint_every": 1, "sample_every": 1, "device": "cpu",
            "steps": 2, "assistant_warmup": 1, "prompt_cache": folder / "cache", "judge": None, "readout": 1.0,
            "precision": "fp32", "resolution": 32,
            "aspects": ASPECTS, "seed": 1, **more,
        }  # fmt: skip

    return of


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Height and width of every pass's samples, the assistant's and the generator's, as they are made."""
    shapes: list[tuple[int, ...]] = []
    run = Engine._run

    def noted(self: Engine, noise: Tensor, *rest: Any) -> Tensor:
        samples = run(self, noise, *rest)
        assert samples.shape == noise.shape
        shapes.append(tuple(samples.shape[2:]))
        return samples

    monkeypatch.setattr(Engine, "_run", noted)
    return shapes


@pytest.mark.first_case
@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("kind", [SD, PIXART])
def test_each_update_has_the_size_that_its_seed_draws(
    kind: str, mode: str, world: Callable[..., dict[str, Any]], seen: list[tuple[int, ...]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    config = make_config(world(kind, out=folder, mode=mode, guidance=2.0))
    train(config)
    draws = Buckets(SIZES, 1)
    assert seen == [draws.of_update(number) for number in (-1, 0, 0, 1, 1)]
    assert len(set(seen)) > 1
    generator = load_generator(str(folder))
    assert generator.latent_shape == (4, *SIZES[0])
    assert json.loads((folder / "final" / "model_index.json").read_text())["_image_sizes"] == "40x24,32x32,24x40"
    assert re.search(r"height=24,\s+width=40", (folder / "final" / "README.md").read_text())
    assert 'width="40" height="24"' in (folder / "report.html").read_text()
    begun = make_config({"generator": str(folder)})
    assert resolve(begun).aspects == tuple(ASPECTS.split(",")) and resolve(begun).resolution == config.resolution


def test_a_stopped_run_goes_on_to_the_same_bits(world: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """With all that makes noises of a batch: micro-batches, several steps, samples that are kept, groups."""
    settings = world(
        PIXART, steps=3, generator_steps=2, accumulation=2, reuse_samples=True, noises_per_prompt=2, assistant_rounds=2
    )  # fmt: skip
    train(make_config(settings | {"out": tmp_path / "whole"}))
    with pytest.raises(Interrupted):
        train(make_config(settings | {"out": tmp_path / "parts"}), listeners=(StopAt(2, signal.SIGINT),))
    train(make_config(settings | {"out": tmp_path / "parts", "resume": True}))
    assert_same_bits(tmp_path / "whole", tmp_path / "parts", 3)
    assert len({Buckets(SIZES, 1).of_update(number) for number in range(3)}) > 1
    with pytest.raises(RequestError, match="aspects was"):
        train(make_config(settings | {"out": tmp_path / "parts", "resume": True, "aspects": "1:1", "steps": 4}))


def test_two_processes_draw_the_noises_of_one_with_the_doubled_batch() -> None:
    """The size is the same function of the update in each of them; of the noises of that size each has its rows."""

    def noises(rank: int, count: int, rows: list[int]) -> Tensor:
        engine = object.__new__(Engine)
        engine.random, engine.processes, engine.accumulation = (
            torch.Generator().manual_seed(0),
            Processes(rank, count),
            1,
        )
        engine.generator = cast(Any, SimpleNamespace(network=torch.nn.Linear(1, 1), latent_shape=(4, 16, 16)))
        condition = Condition(tuple(map(str, rows)), {}, Buckets(SIZES, 1).of_update(1))
        return torch.cat([engine._noise(micro) for micro in engine._micro_batches(condition)])

    one = noises(0, 1, [0, 1, 2, 3])
    assert one.shape == (4, 4, *Buckets(SIZES, 1).of_update(1)) and one.shape[2] != one.shape[3]
    assert torch.equal(torch.cat([noises(0, 2, [0, 1]), noises(1, 2, [2, 3])]), one)


def test_one_size_of_another_area_is_trained_at_alone(
    world: Callable[..., dict[str, Any]], seen: list[tuple[int, ...]], tmp_path: Path
) -> None:
    """Of a generator of this size another run begins at it, wherever its folder was copied to."""
    train(make_config(world(PIXART, out=tmp_path / "run", aspects=(), resolution=24)))
    assert set(seen) == {(12, 12)}
    shutil.copytree(tmp_path / "run" / "final", tmp_path / "copied")
    seen.clear()
    start = {"generator": str(tmp_path / "copied"), "aspects": (), "resolution": None}
    train(make_config(world(PIXART, out=tmp_path / "next", steps=1, **start)))
    assert set(seen) == {(12, 12)}
    assert metrics(tmp_path / "next")


def test_what_has_one_size_is_refused_by_a_sentence(world: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    def refused(sentence: str, kind: str = PIXART, **changes: Any) -> None:
        with pytest.raises(RequestError, match=sentence):
            check_networks(resolve(make_config(world(kind, **changes))), Parts())

    rewards = world(PIXART)["rewards"]
    refused("places for 64 pixels a side", "StableDiffusion3Pipeline", resolution=80)
    for term in ("f_divergence", "group_preference"):
        refused(f"'{term}' learns on latents of updates before", term=term)
    refused("learns on latents of one size", reward_options={name: {"latent": True} for name in rewards})
    (tmp_path / "own.py").write_text("def own():\n    raise AssertionError\n")
    own: dict[str, Any] = {"generator": f"{tmp_path}/own.py:own", "readout": None}
    refused("setting resolution .* only diffusers pipelines draw more than one", **own)
    refused("setting aspects .* only diffusers pipelines draw more than one", **own, resolution=None)
    black = next(iter(rewards)).replace("blue", "black")
    with pytest.raises(RunError, match="the surrogate that stands in for it learns on latents of one size"):
        train(make_config(world(PIXART, out=tmp_path / "black", rewards={black: 1.0}, noises_per_prompt=2)))
    train(make_config(world(PIXART, out=tmp_path / "smooth", rewards={black: 1.0}, black_box="smoothing")))


def test_a_declared_black_box_at_several_sizes_is_refused_by_a_dry_run_and_the_ways_out_work(
    world: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    black = next(iter(world(PIXART)["rewards"])).replace("blue.py:blue", "declared.py:black")
    sentence = r"'.*black' has no gradient.*black_box=smoothing.*aspects=1:1"
    with pytest.raises(RequestError, match=sentence):
        preflight(make_config(world(PIXART, rewards={black: 1.0}, out=tmp_path / "run")))
    given = GivenPart("reward", "black", SimpleNamespace(differentiable=False))
    with lent([given]), pytest.raises(RequestError, match=sentence):
        check_networks(resolve(make_config(world(PIXART, rewards={"black": 1.0}))), Parts())
    for way in ({"black_box": "smoothing"}, {"aspects": "1:1"}, {"term": "policy_gradient", "reward_scale": 1.0}):
        out = tmp_path / "-".join(map(str, way.values())).replace(":", "")
        train(make_config(world(PIXART, rewards={black: 1.0}, noises_per_prompt=2, steps=1, out=out, **way)))


@pytest.mark.parametrize(("height", "width"), [(40, 72), (72, 40)])
def test_rewards_take_images_of_any_aspect(height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for name in ("emoji-preference", "emoji-judge", "colourfulness", "sharpness"):
        reward = load_reward(name)
        scores = reward(images, ["fox on blue"] * 2)
        (gradient,) = torch.autograd.grad(scores.sum(), images)
        assert scores.shape == (2,) and gradient.isfinite().all() and gradient.abs().max() > 0, name
    for fit in ("crop", "pad", "squash", "square"):
        prepared = Preprocess(24, fit)  # type: ignore[arg-type]
        for way in ("pillow", "tensor"):
            assert prepared(images.detach(), way).shape == (2, 3, 24, 24)


def test_a_dry_run_and_a_plan_know_the_sizes(
    world: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = world("StableDiffusion3Pipeline")
    words = ["train", "--dry-run", *[f"--{name}={settings[name]}" for name in ("generator", "reference", "prompts")]]
    assert main([*words, "--reward", "colourfulness", "--resolution", "96"]) == 2
    assert "draws no images of 96x96 pixels" in capsys.readouterr().err
    assert main([*words, "--reward", "colourfulness", "--aspects", "9:1"]) == 2
    assert "the aspect 9:1 is too long" in capsys.readouterr().err
    assert main([*words, "--reward", "colourfulness", "--aspects", "1:1,2:1", "--resolution", "32"]) == 0
    assert "32x32, 48x24" in capsys.readouterr().out

    def peak(**changes: Any) -> int:
        return make_plan(resolve(make_config({**world(PIXART), "rewards": {}, **changes}))).peak

    assert peak(aspects=(), resolution=None) < peak(aspects="1:1,4:1", resolution=64)
    assert peak(aspects="1:1,4:1", resolution=64) == peak(aspects="1:1", resolution=64)
