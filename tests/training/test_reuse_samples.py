"""The assistant learns from the samples of the generator update before: which ones, when not, and to the same bits."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_toolkit import RequestError
from dipp_toolkit.config import make_config
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.distributed import Processes
from dipp_toolkit.errors import Interrupted
from dipp_toolkit.objective.base import Sample, TermResult
from dipp_toolkit.objective.evaluate import WeightedTerm
from dipp_toolkit.planning.estimate import make_plan
from dipp_toolkit.training.engine import Engine
from dipp_toolkit.training.guard import Guard
from dipp_toolkit.training.loop import TrainingLoop
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.verify.cases import make_reference
from dipp_toolkit.verify.world import AffineGenerator, AffineMap
from tiny_runs import BLUE, Run, StopAt, assert_same_bits, blue_settings, runs_in, weights

BATCH = 12


class Shown:
    """An assistant that remembers what it is given."""

    def __init__(self) -> None:
        self.batches: list[tuple[Tensor, tuple[str, ...]]] = []

    def predict_x0(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return x_t

    def update(self, x0: Tensor, condition: Condition, random: torch.Generator) -> float:
        self.batches.append((x0, condition.prompts))
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Squares:
    """A term that remembers the samples it saw; not finite at one step."""

    def __init__(self, broken: int = -1) -> None:
        self.broken, self.seen = broken, []

    def __call__(self, sample: Sample) -> TermResult:
        self.seen.append(sample.x0)
        gradient = sample.x0 * (math.nan if sample.step == self.broken else 1.0)
        return TermResult(sample.x0.flatten(1).square().sum(1), gradient)


class Threads(Processes):
    """Processes that are threads."""

    places: list[Any]
    barrier: Barrier

    def all(self, thing: Any) -> list[Any]:
        self.places[self.rank] = thing
        self.barrier.wait(20)
        everything = list(self.places)
        self.barrier.wait(20)
        return everything

    def tell(self, message: Any) -> list[Any]:
        return self.all(message)

    def mean(self, tensor: Tensor) -> Tensor:
        return torch.stack(self.all(tensor)).mean(0)

    def gather(self, tensor: Tensor) -> Tensor:
        return torch.cat(self.all(tensor))


def engine_of(**special: Any) -> Engine:
    start = torch.Generator().manual_seed(0)  # its own, for processes are threads here
    weight, bias = (torch.randn(shape, generator=start, dtype=torch.float64) for shape in ((3, 3), (3,)))
    generator = AffineGenerator(AffineMap(weight, bias))
    optimizer = torch.optim.SGD(generator.network.parameters(), lr=0.01)
    terms = special.pop("terms", None) or [WeightedTerm("squares", Squares())]
    settings = {"reuse_samples": True, "guard": Guard(1000.0, 5)} | special
    return Engine(generator, optimizer, Shown(), terms, torch.Generator().manual_seed(3), **settings)


def conditions_of(count: int, rows: slice | list[int] = slice(None)) -> list[Condition]:
    names = [[f"{batch}-{row}" for row in range(BATCH)] for batch in range(count)]
    return [make_reference().encode(batch)[rows] for batch in names]


def stepped(engine: Engine, steps: int, rows: slice | list[int] = slice(None)) -> list[int]:
    """Make steps on ever new prompts; how many batches each took."""
    batches, taken = iter(conditions_of(steps * (engine.assistant_rounds + 1), rows)), []
    for step in range(steps):
        count = engine.fresh_rounds + 1
        engine.step([next(batches) for _ in range(count)], step)
        taken.append(count)
    return taken


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_last_update_learns_from_the_generators_samples_of_the_step_before(rounds: int) -> None:
    engine = engine_of(assistant_rounds=rounds)
    assert stepped(engine, 3) == [rounds + 1, rounds, rounds]
    seen, shown = engine.terms[0].term.seen, engine.assistant.batches  # type: ignore[attr-defined]
    assert len(shown) == 3 * rounds
    last = [shown[rounds * step + rounds - 1] for step in range(3)]
    for step in (1, 2):
        assert torch.equal(last[step][0], seen[step - 1])
    # Conditions go with the samples: the generator's batch of the step before.
    assert [prompts[0] for _, prompts in last[1:]] == [f"{rounds}-0", f"{2 * rounds}-0"]
    assert len({prompts[0] for _, prompts in shown}) == 3 * rounds, "no other batch is given twice"


def test_off_or_without_updates_of_the_assistant_nothing_is_kept() -> None:
    plain = engine_of(reuse_samples=False)
    assert stepped(plain, 2) == [2, 2] and plain.kept is None
    assert stepped(engine_of(assistant_rounds=0), 2) == [1, 1]


def test_after_a_skipped_update_the_samples_are_fresh() -> None:
    engine = engine_of(terms=[WeightedTerm("squares", Squares(broken=1))])
    assert stepped(engine, 4) == [2, 1, 2, 1]


@pytest.mark.parametrize(("accumulation", "count"), [(3, 1), (1, 2), (2, 3)])
def test_passes_and_processes_give_it_the_batch_that_one_would(accumulation: int, count: int) -> None:
    alone = engine_of()
    stepped(alone, 2)
    places, barrier, engines = [None] * count, Barrier(count), [None] * count
    size = BATCH // count // accumulation

    def work(rank: int) -> None:
        processes = Threads(rank, count)
        object.__setattr__(processes, "places", places)
        object.__setattr__(processes, "barrier", barrier)
        engine = engine_of(accumulation=accumulation, processes=processes if count > 1 else Processes())
        starts = [(k * count + rank) * size for k in range(accumulation)]
        stepped(engine, 2, [row for start in starts for row in range(start, start + size)])
        engines[rank] = engine  # type: ignore[call-overload]

    threads = [Thread(target=work, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (x0, prompts), samples = alone.assistant.batches[1], alone.terms[0].term.seen[0]  # type: ignore[attr-defined]
    for engine in engines:
        own_x0, own_prompts = engine.assistant.batches[1]  # type: ignore[attr-defined]
        assert own_prompts == prompts
        torch.testing.assert_close(own_x0, x0)
        torch.testing.assert_close(own_x0, samples)


def test_every_steps_samples_are_as_likely_where_each_is_supervised() -> None:
    class Numbered:
        """A generator of three steps, whose samples say which step made them."""

        latent_shape, steps = (3, 1, 1), 3

        def __init__(self) -> None:
            self.network = torch.nn.Linear(3, 3).double()

        def generate(self, noise: Tensor, condition: Condition) -> Tensor:
            return self.read_out(noise, 2, condition)

        def read_out(self, x_t: Tensor, step: int, condition: Condition) -> Tensor:
            return 0 * self.network(x_t.flatten(1)).reshape(x_t.shape) + step

        def noised(self, x0: Tensor, noise: Tensor, step: int) -> Tensor:
            return x0 + noise

        def save_pretrained(self, folder: Path, assistant: Any = None) -> None: ...

    engine = engine_of(supervise="every", guard=None)
    engine.generator = Numbered()
    stepped(engine, 61)
    steps = [int(x0.flatten()[0]) for x0, _ in engine.assistant.batches[1:]]  # type: ignore[attr-defined]
    assert min(steps.count(step) for step in (0, 1, 2)) > 8


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("reuse")
    return blue_settings(folder, BLUE, sample_every=100, steps=5, reuse_samples=True, checkpoint_every=2)


@pytest.fixture
def run(settings: dict[str, Any], tmp_path: Path) -> Run:
    return runs_in(tmp_path, settings)


@pytest.mark.first_case
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"assistant_rounds": 2, "accumulation": 2, "noises_per_prompt": 2, "assistant_warmup": 2, "mode": "lora"},
        {"generator_steps": 2, "supervise": "every", "recompute_generator": True},
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bits(
    run: Run, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"lora_rank": 4} | more
    taken: dict[str, list[list[int]]] = {}
    noted = noting_prompts(taken)
    monkeypatch.setattr(TrainingLoop, "_take", noted)
    whole = run("whole", **more)
    with pytest.raises(Interrupted):
        run("parts", listeners=(StopAt(3, signal.SIGINT),), **more)
    assert "/kept/samples" in weights(whole, 5)
    assert_same_bits(whole, run("parts", resume=True, **more), 5)
    # Every batch of prompts is taken once, in order, and the kept one a second time on resuming.
    at = next(k for k, (one, other) in enumerate(zip(taken["whole"], taken["parts"], strict=False)) if one != other)
    assert taken["parts"][at] in taken["parts"][:at]
    assert taken["parts"][:at] + taken["parts"][at + 1 :] == taken["whole"]


def noting_prompts(taken: dict[str, list[list[int]]]) -> Callable[..., Condition]:
    """`TrainingLoop._take` that notes the places it is asked for, by the run's name."""
    take = TrainingLoop._take

    def noted(loop: TrainingLoop, positions: Any, update: int) -> Condition:
        taken.setdefault(loop.folder.path.name, []).append(list(positions))
        return take(loop, positions, update)

    return noted


def test_without_it_no_checkpoint_holds_samples(run: Run) -> None:
    assert not any("kept" in name for name in weights(run("plain", reuse_samples=False, steps=2), 2))


def test_it_is_refused_where_the_assistant_learns_nothing(settings: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="Leave reuse_samples out, or set assistant_rounds=1"):
        resolve(make_config(settings | {"assistant_rounds": 0}))


def test_a_plan_counts_the_pass_that_is_saved() -> None:
    settings = {"generator": "emoji-onestep", "batch_size": 2, "precision": "fp32"}
    fresh, reused = (make_plan(resolve(make_config(settings | {"reuse_samples": on}))) for on in (False, True))
    (gpu, *_) = fresh.pieces
    assert reused.pieces[gpu]["assistant update"] < fresh.pieces[gpu]["assistant update"]
    assert reused.peak == fresh.peak
