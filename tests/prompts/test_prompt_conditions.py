"""A run's prompts as conditions: held or read batch by batch, the same; and encoded by one of several processes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from dipp_toolkit import TrainConfig, load_reference
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.distributed import Processes
from dipp_toolkit.errors import DippError, RequestError, RunError
from dipp_toolkit.models.text_encoders import PromptEncoder
from dipp_toolkit.prompts import conditions as prompt_conditions
from dipp_toolkit.prompts import dataset
from dipp_toolkit.prompts.cache import CachedConditions, PromptCache
from dipp_toolkit.prompts.conditions import OwnConditions, encode_prompts
from dipp_toolkit.training.run import train
from dipp_toolkit.utils.lazy_sequence import Mapped
from dipp_toolkit.verify.cases import make_reference
from tiny import PROMPTS, tiny_pipeline

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_pipeline(tmp_path / "pipeline")


def settings(folder: Path, cache: Path) -> TrainConfig:
    return TrainConfig(reference=str(folder), prompt_cache=cache, prompts="p.txt")


def same(one: Condition, two: Condition) -> bool:
    return one.prompts == two.prompts and all(torch.equal(one.tensors[key], two.tensors[key]) for key in two.tensors)


def test_held_and_read_batch_by_batch_are_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(folder, tmp_path / "cache")
    held, held_eval = encode_prompts(load_reference(str(folder)), config, PROMPTS, PROMPTS[:1], CPU)
    monkeypatch.setattr(prompt_conditions, "HELD_BYTES", 0)
    reference = load_reference(str(folder))
    lazy = Mapped(range(len(PROMPTS)), PROMPTS.__getitem__)
    read, read_eval = encode_prompts(reference, config, lazy, PROMPTS[:1], CPU)
    assert isinstance(held, Condition) and isinstance(read, CachedConditions) and read.prompts is lazy
    assert len(read) == len(held) == len(PROMPTS) and same(held_eval, read_eval)
    for rows in ([2, 0, 2], slice(1, 3), (3, 1)):
        assert same(held[rows], read[rows])
    assert same(held[[0]].to(torch.float32), read[[0]]) and not reference.encoder.loaded
    assert reference.null(2).prompts == ("", "")


def test_a_reference_that_encodes_itself_is_asked_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = make_reference()
    config = TrainConfig(reference="x", prompts="p.txt")
    held, _ = encode_prompts(reference, config, PROMPTS, PROMPTS[:1], CPU)
    monkeypatch.setattr(prompt_conditions, "HELD_BYTES", 0)
    read, read_eval = encode_prompts(reference, config, PROMPTS, PROMPTS[:1], CPU)
    assert isinstance(held, Condition) and isinstance(read, OwnConditions)
    assert len(read) == len(PROMPTS) and same(held[[2, 0]], read[[2, 0]]) and same(held[1:3], read[1:3])
    assert same(held[:1], read_eval)


@pytest.mark.slow
def test_a_run_from_a_file_that_is_not_held_is_the_same_to_the_bit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    config = settings(folder, tmp_path / "cache").model_copy(
        update={"prompts": str(tmp_path / "p.txt"), "steps": 3, "batch_size": 3, "eval_count": 2, "reference_steps": 1}
    )
    first = train(config.model_copy(update={"out": tmp_path / "held"}))
    monkeypatch.setattr(prompt_conditions, "HELD_BYTES", 0)
    monkeypatch.setattr(dataset, "HELD_PROMPTS", 0)
    second = train(config.model_copy(update={"out": tmp_path / "read"}))
    held, read = (next((run.folder / "final").glob("transformer/*.safetensors")) for run in (first, second))
    assert held.read_bytes() == read.read_bytes()


@dataclass
class Meeting:
    """What processes tell each other, between threads."""

    count: int
    failures: dict[int, DippError | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.count, timeout=300)


@dataclass(frozen=True)
class Threads(Processes):
    """Threads that take themselves for processes."""

    meeting: Any = None

    def agree(self, failure: DippError | None) -> None:
        self.meeting.failures[self.rank] = failure
        self.meeting.barrier.wait()
        if failure is not None:
            raise failure
        if any(self.meeting.failures.values()):
            raise RunError("another failed")


def together(folder: Path, caches: Sequence[Path], prompts: Sequence[str]) -> list[Any]:
    """What `encode_prompts` gives or raises in each of several processes."""
    meeting, outcomes = Meeting(len(caches)), [None] * len(caches)
    references = [load_reference(str(folder)) for _ in caches]

    def work(rank: int) -> None:
        processes = Threads(rank, len(caches), meeting)
        try:
            config = settings(folder, caches[rank])
            outcomes[rank] = encode_prompts(references[rank], config, prompts, prompts[:1], CPU, processes)
        except DippError as error:
            outcomes[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(caches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


@pytest.mark.parametrize("held", [0, 2**28])
def test_one_process_encodes_and_the_others_wait(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(prompt_conditions, "HELD_BYTES", held)
    encoded: list[str] = []
    original = PromptEncoder.encode

    def encode(self: PromptEncoder, prompts: Sequence[str]) -> Condition:
        encoded.extend(prompts)
        return original(self, prompts)

    monkeypatch.setattr(PromptEncoder, "encode", encode)
    outcomes = together(folder, [tmp_path / "cache"] * 3, PROMPTS)
    assert sorted(encoded) == sorted([*PROMPTS, ""])
    assert all(same(outcomes[0][0][[3, 1]], outcome[0][[3, 1]]) for outcome in outcomes)


def test_a_process_with_a_cache_of_its_own_fills_it(folder: Path, tmp_path: Path) -> None:
    outcomes = together(folder, [tmp_path / "here", tmp_path / "there"], PROMPTS)
    assert same(outcomes[0][0][:], outcomes[1][0][:])
    for place in ("here", "there"):
        assert PromptCache(next((tmp_path / place).glob("*/*"))).missing(PROMPTS) == []


def test_where_the_first_process_cannot_encode_all_end(folder: Path, tmp_path: Path) -> None:
    outcomes = together(folder, [tmp_path / "cache"] * 2, ["a red cat " * 50])
    assert isinstance(outcomes[0], RequestError) and "tokens, and the text encoder reads" in str(outcomes[0])
    assert isinstance(outcomes[1], RunError)
