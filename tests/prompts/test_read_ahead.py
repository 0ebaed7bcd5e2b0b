"""Batches that are read ahead are those that are read when asked for: the same bits, order and errors."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dipp_toolkit.config import make_config
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.prompts import cache as cache_module
from dipp_toolkit.prompts import conditions as conditions_module
from dipp_toolkit.prompts.cache import CachedConditions, PromptCache
from dipp_toolkit.prompts.read_ahead import ReadAhead
from dipp_toolkit.training.loop import TrainingLoop
from dipp_toolkit.training.run_state.run_folder import RunFolder
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve
from tiny_runs import BLUE, blue_settings

PATIENCE = 60


def batch(rows: Sequence[int]) -> Condition:
    return Condition(tuple(map(str, rows)), {"row": torch.tensor(list(rows))})


def test_what_is_expected_is_read_once_and_in_another_thread() -> None:
    threads: list[tuple[tuple[int, ...], bool]] = []

    def read(rows: Sequence[int]) -> Condition:
        threads.append((tuple(rows), threading.current_thread() is threading.main_thread()))
        return batch(rows)

    ahead = ReadAhead(read)
    ahead.expect([[1, 2], [3, 4], [1, 2]])
    assert ahead.take([3, 4]).prompts == ("3", "4")
    assert ahead.take([1, 2]).prompts == ("1", "2")
    assert threads == [((1, 2), False), ((3, 4), False)]
    assert ahead.take([1, 2]).prompts == ("1", "2") and threads[2] == ((1, 2), True)


def test_an_error_is_raised_where_the_batch_is_asked_for_and_nowhere_else() -> None:
    def read(rows: Sequence[int]) -> Condition:
        if 3 in rows:
            raise RequestError("The prompt '3' is not there.")
        return batch(rows)

    ahead = ReadAhead(read)
    ahead.expect([[3], [4]])
    assert ahead.take([4]).prompts == ("4",)
    with pytest.raises(RequestError, match="'3' is not there"):
        ahead.take([3])


def test_what_was_not_asked_for_is_dropped_and_what_still_is_expected_is_kept() -> None:
    read: list[tuple[int, ...]] = []
    ahead = ReadAhead(lambda rows: (read.append(tuple(rows)), batch(rows))[1])
    ahead.expect([[1], [2]])
    ahead.expect([[2], [5]])
    assert [ahead.take([row]).prompts for row in (2, 5, 1)] == [("2",), ("5",), ("1",)]
    assert sorted(read) in ([(1,), (1,), (2,), (5,)], [(1,), (2,), (5,)])


def test_nobody_waits_for_a_thread_that_hangs() -> None:
    hung, go_on = threading.Event(), threading.Event()

    def read(rows: Sequence[int]) -> Condition:
        if rows[0] == 1:
            hung.set()
            go_on.wait(PATIENCE)
        return batch(rows)

    ahead = ReadAhead(read)
    ahead.expect([[1]])
    assert hung.wait(PATIENCE)
    assert ahead.take([2]).prompts == ("2",)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "prompts read ahead"]
    assert thread.daemon  # the interpreter ends without it
    go_on.set()
    thread.join(PATIENCE)


def test_a_batch_of_many_queries_and_repeated_prompts_is_read_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "TOGETHER", 3)
    cache, prompts = PromptCache(tmp_path), [f"p{k}" for k in range(8)]
    hidden = torch.randn(8, 5, 4, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    hidden[2, 3:] = 0
    cache.add(Condition(tuple(prompts), {"hidden": hidden, "mask": torch.arange(8)}), torch.bfloat16)
    rows = [7, 2, 2, 0, 7, 5, 1]
    conditions = CachedConditions(prompts, cache, torch.device("cpu"))
    conditions.expect([rows])
    for _ in range(2):
        read = conditions[rows]
        assert read.prompts == tuple(prompts[row] for row in rows)
        assert torch.equal(read.tensors["hidden"], hidden[rows]) and read.tensors["hidden"].dtype == torch.float32
        assert read.tensors["mask"].tolist() == rows
    assert cache.missing(["x", *prompts, "y", "x"]) == ["x", "y"]


def test_every_batch_after_the_first_of_a_training_is_read_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditions_module, "HELD_BYTES", 0)
    settings = blue_settings(
        tmp_path, BLUE, assistant_rounds=2, noises_per_prompt=2, batch_size=1, out=tmp_path / "run"
    )
    (tmp_path / "many.txt").write_text("\n".join(f"cat {k}" for k in range(20)))
    config = resolve(make_config({**settings, "assistant_warmup": 2, "prompts": str(tmp_path / "many.txt")}))
    loop = TrainingLoop(config, assemble(config), RunFolder(tmp_path / "run"))
    asked: list[bool] = []
    conditions: Any = loop.parts.conditions
    ahead, take = conditions._ahead, conditions._ahead.take
    monkeypatch.setattr(ahead, "take", lambda rows: (asked.append(tuple(rows) in ahead._waiting), take(rows))[1])
    loop.warm_once(), loop.warm_once()
    for _ in range(3):
        loop.one_step()
    # Two updates of the warm-up, then two of the assistant's and one of the generator's in each step.
    assert len(asked) == 2 + 3 * 3
    assert asked == [False, True, True, False] + [True] * 7, "after the warm-up, one of two was not foreseen"
