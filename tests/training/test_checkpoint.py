"""Checkpoints: bit-equal round trips, damage that is noticed, writes that happen whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dipp_toolkit.errors import CheckpointError
from dipp_toolkit.training.run_state import checkpoint
from dipp_toolkit.training.run_state.checkpoint import (
    SKELETON,
    TENSORS,
    checkpoint_step,
    checkpoints,
    load_checkpoint,
    newest_whole_checkpoint,
    save_checkpoint,
)


def same(a: Any, b: Any) -> bool:
    """Whether two nested states are equal in types, keys, order and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(item, other) for item, other in zip(a, b, strict=True))
    return a == b


def test_nested_states_come_back_to_the_bit(tmp_path: Path) -> None:
    shared = torch.randn(3)
    state = {
        "tensors": {
            "bf16": torch.randn(3, 2).bfloat16(),
            "half": torch.randn(2).half(),
            "double": torch.randn(2, dtype=torch.float64),
            "empty": torch.empty(0, 4),
            "scalar": torch.tensor(3.5),
            "bool": torch.tensor([True, False]),
            "bytes": torch.get_rng_state(),
            "ints": torch.arange(5),
            "nan": torch.tensor([float("nan"), float("-inf")]),
            "view": torch.randn(4, 6)[:, 1::2].T,
            "shared": shared,
            "shared again": shared,
        },
        "numbers": [1, -2.5, 1e-300, True, None, "text with / and \u00e9"],
        "tuple": (1, (2.0, torch.ones(1)), []),
        "int keys": {3: "three", 10: {0: torch.zeros(2)}},
        "slash/key": {"": 1, "dotted.key": torch.ones(2)},
        "empty dict": {},
    }
    save_checkpoint(tmp_path / "step-1", state)
    assert same(load_checkpoint(tmp_path / "step-1"), state)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_optimisers_go_on_to_the_bit(tmp_path: Path, name: str) -> None:
    def build() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, getattr(torch.optim, name)(
            model.parameters(), lr=0.1, **({"momentum": 0.9} if name == "SGD" else {})
        )

    def train(model: torch.nn.Linear, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()

    straight, straight_optimizer = build()
    train(straight, straight_optimizer, 6)
    first, first_optimizer = build()
    train(first, first_optimizer, 3)
    save_checkpoint(tmp_path / "step-3", {"model": dict(first.state_dict()), "optimizer": first_optimizer.state_dict()})
    second, second_optimizer = build()
    state = load_checkpoint(tmp_path / "step-3")
    second.load_state_dict(state["model"])
    second_optimizer.load_state_dict(state["optimizer"])
    train(second, second_optimizer, 3)
    assert torch.equal(second.weight, straight.weight)
    assert same(second_optimizer.state_dict()["state"], straight_optimizer.state_dict()["state"])


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("position", [0, 20, -1])
def test_one_flipped_bit_is_noticed(tmp_path: Path, position: int) -> None:
    folder = tmp_path / "step-1"
    save_checkpoint(folder, {"weights": torch.randn(10)})
    flip(folder / TENSORS, position)
    with pytest.raises(CheckpointError, match=rf"{folder} is damaged: the checksum of {TENSORS} does not match"):
        load_checkpoint(folder)


def test_one_changed_digit_in_the_skeleton_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "step-1"
    save_checkpoint(folder, {"weights": torch.randn(10), "step": 12})
    path = folder / SKELETON
    path.write_text(path.read_text().replace('"step": 12', '"step": 13'))
    with pytest.raises(CheckpointError, match=f"is damaged: the checksum of {SKELETON} does not match"):
        load_checkpoint(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', "null"])
def test_a_broken_skeleton_is_noticed(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "step-1"
    save_checkpoint(folder, {"weights": torch.randn(10)})
    (folder / SKELETON).write_text(content)
    with pytest.raises(CheckpointError, match=f"is damaged: {SKELETON} cannot be read"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", [TENSORS, SKELETON])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "step-1"
    save_checkpoint(folder, {"weights": torch.randn(10)})
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"is not a checkpoint: {name} is missing"):
        load_checkpoint(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="gone is not a checkpoint"):
        load_checkpoint(tmp_path / "gone")


def test_another_format_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "step-1"
    save_checkpoint(folder, {"weights": torch.randn(10)})
    path = folder / SKELETON
    path.write_text(path.read_text().replace('"format": 2', '"format": 99'))
    with pytest.raises(CheckpointError, match="has format 99; this version reads format 2"):
        load_checkpoint(folder)


def test_the_newest_whole_one_is_found_past_a_damaged_one(tmp_path: Path) -> None:
    for step in (2, 9, 10):
        save_checkpoint(tmp_path / f"step-{step:08d}", {"step": step, "weights": torch.ones(3)})
    (tmp_path / "notes").mkdir()
    (tmp_path / "step-x").mkdir()
    assert [checkpoint_step(item) for item in checkpoints(tmp_path)] == [2, 9, 10]
    state, problems = newest_whole_checkpoint(tmp_path)
    assert (state or {})["step"] == 10
    assert problems == []
    flip(tmp_path / "step-00000010" / TENSORS, -1)
    state, problems = newest_whole_checkpoint(tmp_path)
    assert (state or {})["step"] == 9
    assert len(problems) == 1
    assert "step-00000010 is damaged" in problems[0]


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert newest_whole_checkpoint(tmp_path) == (None, [])
    assert newest_whole_checkpoint(tmp_path / "gone") == (None, [])


def test_a_checkpoint_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "step-1"
    save_checkpoint(folder, {"value": 1, "weights": torch.ones(3)})
    save_checkpoint(folder, {"value": 2})
    assert load_checkpoint(folder) == {"value": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


@pytest.mark.parametrize("broken", ["save_file", "_sha256", "fsync"])
def test_a_write_that_fails_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    folder = tmp_path / "step-1"
    save_checkpoint(folder, {"value": 1})

    def no_space(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, broken, no_space)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(folder, {"value": 2})
    assert load_checkpoint(folder) == {"value": 1}
    assert checkpoints(tmp_path) == [folder]
    save_checkpoint(folder, {"value": 3})
    assert load_checkpoint(folder) == {"value": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_something_else_than_plain_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="/engine/thing is a object"):
        save_checkpoint(tmp_path / "step-1", {"engine": {"thing": object()}})
    assert list(tmp_path.iterdir()) == []
