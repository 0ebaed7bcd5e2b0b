"""`dipp generate` holds a batch of images, and no more."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from dipp_cli.actions.pictures import write_pictures
from dipp_toolkit.utils.images import save_grid


def test_a_batch_is_written_before_the_next_is_made(tmp_path: Path) -> None:
    images = torch.rand(7, 3, 4, 6)
    there = []

    def batches():  # type: ignore[no-untyped-def]
        for part in images.split(3):
            there.append(len(list((tmp_path / "out").rglob("*.png"))))
            yield part

    written = write_pictures(batches(), [f"prompt {number}" for number in range(7)], tmp_path / "out")
    assert there == [0, 3, 6] and len(written) == 8
    whole = write_pictures(images, [f"prompt {number}" for number in range(7)], tmp_path / "whole")
    save_grid(images, tmp_path / "grid.png")
    for one, other in [*zip(written, whole, strict=True), (written[-1], tmp_path / "grid.png")]:
        assert Image.open(one).tobytes() == Image.open(other).tobytes()
