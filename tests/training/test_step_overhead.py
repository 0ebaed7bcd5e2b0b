"""A step of a training makes the network passes that it needs, and none twice."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from dipp_toolkit import TrainConfig

BATCH = 3


@pytest.mark.slow
@pytest.mark.parametrize(("guidance", "seen"), [(1.5, 2 * BATCH), (1.0, BATCH)])
def test_passes_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guidance: float, seen: int) -> None:
    """Guidance is one pass of both halves, and none where it is 1; the decoder runs once for all rewards; captions that
    were read before are not read again."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    counting, measuring = importlib.import_module("counting"), importlib.import_module("measuring")
    settings = measuring.PLAIN | {"guidance": guidance, "batch_size": BATCH, "device": "cpu", "out": tmp_path / "run"}
    found = counting.counted(TrainConfig(generator="emoji-onestep", **settings), tmp_path)
    assert found == {
        "generator": [BATCH, BATCH],
        "assistant": [BATCH, BATCH],
        "reference": [seen],
        "decoder": [BATCH],
        "emoji-preference, images": [BATCH],
        "emoji-preference, prompts": [],
        "emoji-clip, images": [BATCH],
        "emoji-clip, prompts": [],
    }
