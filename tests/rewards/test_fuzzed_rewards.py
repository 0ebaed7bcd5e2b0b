"""Whatever a reward returns or raises: one sentence, and a checkpoint from which the run goes on to the bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dipp_toolkit.config import make_config
from dipp_toolkit.errors import DippError, Interrupted
from dipp_toolkit.training.listeners import Broadcast
from dipp_toolkit.training.loop import TrainingLoop
from dipp_toolkit.training.run_state.checkpoint import newest_whole_checkpoint
from dipp_toolkit.training.run_state.run_folder import RunFolder
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.training.stepping import StopRequest, run_steps
from tiny_runs import tiny_world

BATCH = 2


class Fuzzed:
    """A good reward for one step; then it answers what it is told to."""

    name = "fuzzed"
    differentiable = True

    def __init__(self) -> None:
        self.answer: Callable[[Tensor], Any] = self.good

    @staticmethod
    def good(images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Any:
        return self.answer(images)


def answers(seed: int) -> Iterator[Callable[[Tensor], Any]]:
    """Wrong answers without end, of every kind that a careless reward gives."""
    dice = random.Random(seed)
    wrong_numbers = [float("nan"), float("inf"), float("-inf")]
    errors = [ValueError, KeyError, RuntimeError, TypeError, IndexError, OSError, ZeroDivisionError, AssertionError]
    errors += [MemoryError, NotImplementedError, UnicodeError, StopIteration, RecursionError]

    def shaped(images: Tensor) -> Tensor:
        shape = [dice.randint(0, 3) for _ in range(dice.randint(0, 3))]
        return images.mean() * torch.ones([3, *shape])

    def raising(images: Tensor) -> Tensor:
        raise dice.choice(errors)(dice.choice(["", "bad\nnews", "ü" * 500, 7]))

    def unlucky(images: Tensor) -> Tensor:
        return images.mean((1, 2, 3)) * dice.choice(wrong_numbers)

    def one_unlucky(images: Tensor) -> Tensor:
        return images.mean((1, 2, 3)) + torch.tensor([0.0, dice.choice(wrong_numbers)])

    def exploding_gradient(images: Tensor) -> Tensor:
        return (images.mean((1, 2, 3)) * 0).sqrt()

    def odd_things(images: Tensor) -> Any:
        things: list[Any] = [
            None, "score", b"\x80\x04K\x01.", {}, {"score": [1, 2]}, [], [1.0], [[1.0], [2.0]], [None, None], object(),
            ["1", "2"], [1e400, 0], [10**400, 1], (x for x in (1, 2)), np.array([1, 2, 3]), np.array(["a", "b"]),
            np.array([np.nan, 1]), torch.zeros(BATCH, dtype=torch.complex64), torch.zeros(BATCH, device="meta"),
            torch.zeros(BATCH).to_sparse(), images, images.mean(), images.detach().mean((1, 2, 3)), int, True,
        ]  # fmt: skip
        return dice.choice(things)

    while True:
        yield dice.choice([shaped, raising, unlucky, one_unlucky, exploding_gradient, odd_things, odd_things])


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingLoop, Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzzed")
    config = make_config(
        {**tiny_world(folder), "batch_size": BATCH,
         "steps": 10**6, "eval_count": 2, "rewards": {"colourfulness": 1.0}, "floors": {"colourfulness": 0.5},
         "checkpoint_every": 10**6, "sample_every": 10**6, "keep_checkpoints": 1, "bad_steps": 1}
    )  # fmt: skip
    config = resolve(config)
    parts = assemble(config)
    reward = Fuzzed()
    parts.engine.terms[1].term.reward = reward  # type: ignore[attr-defined]
    run = RunFolder(folder / "run")
    run.create(config)
    return TrainingLoop(config, parts, run), reward


class StopAfter:
    """Stops a run once it has done one more step."""

    def __init__(self, stop: StopRequest):
        self.stop = stop

    def dipp_on_step(self, event: object) -> None:
        import signal

        self.stop.signal = signal.SIGTERM


def go_on(loop: TrainingLoop) -> DippError | Interrupted:
    """Step once more, or fail; what ended it."""
    stop = StopRequest()
    with pytest.raises((DippError, Interrupted)) as caught:
        run_steps(loop, stop, Broadcast([StopAfter(stop)]))
    return caught.value


@pytest.mark.parametrize(("seed", "cases"), [(1, 60), pytest.param(2, 1000, marks=pytest.mark.exhaustive)])
def test_whatever_a_reward_answers_nothing_is_lost(loop: tuple[TrainingLoop, Fuzzed], seed: int, cases: int) -> None:
    run, reward = loop
    wrong = answers(seed)
    for _ in range(cases):
        reward.answer = reward.good
        assert "Interrupted" in str(go_on(run))
        expected, weights = run.step, [parameter.clone() for parameter in run.parts.generator.network.parameters()]
        reward.answer = next(wrong)
        sentence = str(go_on(run))
        assert sentence.endswith(f"Go on with: dipp train --resume --out {run.folder.path}"), sentence
        assert "fuzzed" in sentence or "colourfulness" in sentence
        state, problems = newest_whole_checkpoint(run.folder.checkpoints)
        assert state is not None and not problems
        # Bad numbers skip the step; with one such step allowed, the run stops after it.
        assert state["step"] == run.step == expected + ("Bad numbers" in sentence)
        assert all(torch.equal(a, b) for a, b in zip(weights, run.parts.generator.network.parameters(), strict=True))
        run.load_state_dict(state)


def test_a_run_that_was_stopped_by_its_reward_goes_on_to_the_bit(loop: tuple[TrainingLoop, Fuzzed]) -> None:
    """The assistant's updates are not done twice, and no random number is drawn twice."""
    run, reward = loop

    def three_steps() -> list[dict[str, float]]:
        return [run.one_step() for _ in range(3)]

    def measured(rows: list[dict[str, float]]) -> list[dict[str, float]]:
        machine = ("seconds", "images_per_second", "memory_mb")
        return [{key: value for key, value in row.items() if key not in machine} for row in rows]

    reward.answer = reward.good
    run.save()
    start, _ = newest_whole_checkpoint(run.folder.checkpoints)
    assert start is not None
    whole = measured(three_steps())
    run.load_state_dict(start)
    first = measured([run.one_step()])
    reward.answer = lambda images: 1 / 0
    go_on(run)
    assert run.assistant_loss is not None
    run.save()
    state, _ = newest_whole_checkpoint(run.folder.checkpoints)
    assert state is not None
    reward.answer = reward.good
    run.load_state_dict(state)
    assert first + measured([run.one_step(), run.one_step()]) == whole


def test_nothing_is_saved_where_there_was_no_step(tmp_path: Path, loop: tuple[TrainingLoop, Fuzzed]) -> None:
    run, reward = loop
    fresh = TrainingLoop(run.config, run.parts, RunFolder(tmp_path / "run"))
    fresh.folder.create(run.config)
    reward.answer = lambda images: None
    assert str(go_on(fresh)).endswith("The run stopped before its first step was done.")
    assert not fresh.folder.checkpoints.exists()
