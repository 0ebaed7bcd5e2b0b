"""Batches of the generator hold several samples of a prompt where a surrogate learns a reward, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_toolkit.config import make_config
from dipp_toolkit.training.loop import TrainingLoop
from dipp_toolkit.training.run_state.run_folder import RunFolder
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve
from tiny import PROMPTS, tiny_pipeline

BOXES = """
def bytes_of(images, prompts):
    return [float(image.numpy().mean()) for image in images]

def blue(images, prompts):
    return images[:, 2].mean((1, 2))
"""
Open = Callable[..., TrainingLoop]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noises")
    tiny_pipeline(folder / "tiny")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    (folder / "boxes.py").write_text(BOXES)
    return folder


@pytest.fixture
def open_loop(world: Path, tmp_path: Path) -> Open:
    def loop(reward: str = "bytes_of", **more: Any) -> TrainingLoop:
        settings = {
            "generator": str(world / "tiny"), "reference": str(world / "tiny"), "prompts": str(world / "prompts.txt"),
            "batch_size": 4, "steps": 8, "eval_count": 2, "reference_steps": 1, "black_box_rounds": 1,
            "rewards": {f"{world}/boxes.py:{reward}": 1.0}, "out": tmp_path / "run",
        }  # fmt: skip
        config = resolve(make_config({**settings, **more}))
        return TrainingLoop(config, assemble(config), RunFolder(tmp_path / "run"))

    return loop


def prompts_of(loop: TrainingLoop, steps: int) -> tuple[list[list[str]], list[list[str]]]:
    """What each update of the assistant and of the generator is made of."""
    engine, assistant, generator = loop.parts.engine, [], []
    update_assistant, update_generator = engine.update_assistant, engine.update_generator
    engine.update_assistant = lambda one: (assistant.append(list(one.prompts)), update_assistant(one))[1]  # type: ignore[method-assign]
    engine.update_generator = lambda one, step: (generator.append(list(one.prompts)), update_generator(one, step))[1]  # type: ignore[method-assign]
    for _ in range(steps):
        loop.one_step()
    return assistant, generator


def test_a_black_box_has_two_noises_a_prompt(open_loop: Open) -> None:
    loop = open_loop()
    order = loop.order.take(0, 12)
    assistant, generator = prompts_of(loop, 2)
    taken = [loop.parts.conditions[[row]].prompts[0] for row in order]
    assert assistant == [taken[0:4], taken[6:10]]
    assert generator == [[taken[4]] * 2 + [taken[5]] * 2, [taken[10]] * 2 + [taken[11]] * 2]
    assert loop.taken == 12


def test_the_second_noise_of_a_batch_of_one_comes_in_the_next(open_loop: Open) -> None:
    loop = open_loop(batch_size=1)
    _, generator = prompts_of(loop, 4)
    assert generator[0] == generator[1] and generator[2] == generator[3]
    assert loop.taken == 4 + 2


@pytest.mark.parametrize(
    ("reward", "more", "each"),
    [
        ("blue", {}, 1),
        ("bytes_of", {"black_box": "smoothing"}, 1),
        ("bytes_of", {"term": "policy_gradient"}, 1),
        ("bytes_of", {"term": "diffused_reward"}, 2),
        ("blue", {"noises_per_prompt": 3}, 3),
        ("bytes_of", {"noises_per_prompt": 1}, 1),
    ],
)
def test_pairs_are_made_where_a_surrogate_learns(open_loop: Open, reward: str, more: dict[str, Any], each: int) -> None:
    loop = open_loop(reward, **more)
    before = loop.parts.engine.random.get_state()
    settled = loop.settle_noises()
    assert settled.each == each
    assert torch.equal(loop.parts.engine.random.get_state(), before)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_run_that_goes_on_has_the_same_batches_and_bits(open_loop: Open, accumulation: int) -> None:
    settings = {"batch_size": 1, "accumulation": accumulation, "black_box_trust": -1.0}
    whole, parts = open_loop(**settings), open_loop(**settings)
    _, generator = prompts_of(whole, 5)
    parts.one_step()
    resumed = open_loop(**settings)
    resumed.load_state_dict(parts.state_dict())
    _, rest = prompts_of(resumed, 4)
    assert rest == generator[1:]
    assert resumed.taken == whole.taken
    torch.testing.assert_close(_learned(resumed), _learned(whole), rtol=0, atol=0)


def test_an_older_checkpoint_with_a_black_box_goes_on_in_pairs(open_loop: Open) -> None:
    loop = open_loop()
    state = {**loop.state_dict(), "step": 1, "taken": 8}
    del state["noises"]
    resumed = open_loop()
    resumed.load_state_dict(state)
    _, (batch,) = prompts_of(resumed, 1)
    assert batch[0] == batch[1] != batch[2] == batch[3]


def _learned(loop: TrainingLoop) -> dict[str, Tensor]:
    weights = dict(loop.parts.generator.network.state_dict())
    (term,) = [item.term for item in loop.parts.engine.terms if item.mixed]
    return {**weights, **{f"surrogate/{k}": v for k, v in term.state_dict()["network"].items()}}  # type: ignore[attr-defined]
