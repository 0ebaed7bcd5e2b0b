"""A step of a training makes the network passes that it needs, and none twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks._shared.counting import counted
from benchmarks._shared.measuring import PLAIN
from dipp_toolkit import TrainConfig

BATCH = 3


@pytest.mark.slow
@pytest.mark.parametrize(("guidance", "seen"), [(1.5, 2 * BATCH), (1.0, BATCH)])
def test_passes_of_a_step(tmp_path: Path, guidance: float, seen: int) -> None:
    """Guidance is one pass of both halves, and none where it is 1; the decoder runs once for all rewards; captions that
    were read before are not read again."""
    settings = PLAIN | {"guidance": guidance, "batch_size": BATCH, "device": "cpu", "out": tmp_path / "run"}
    passes = counted(TrainConfig(generator="emoji-onestep", **settings), tmp_path)
    assert passes == {
        "generator": [BATCH, BATCH],
        "assistant": [BATCH, BATCH],
        "reference": [seen],
        "decoder": [BATCH],
        "emoji-preference, images": [BATCH],
        "emoji-preference, prompts": [],
        "emoji-clip, images": [BATCH],
        "emoji-clip, prompts": [],
    }
