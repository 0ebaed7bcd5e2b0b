"""`dipp generate` holds a batch of images, and no more."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from PIL import Image

from dipp_cli.actions.generate import encoded_later
from dipp_cli.actions.pictures import write_pictures
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.models.sampling import fixed_noise, noise_batches
from dipp_toolkit.protocols import Reference
from dipp_toolkit.utils import images as pictures
from dipp_toolkit.utils.images import Grid, save_grid


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


def test_a_long_grid_has_its_images_shrunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(10, 3, 8, 12)
    save_grid(images, tmp_path / "whole.png", columns=4)
    monkeypatch.setattr(pictures, "LONGEST_SIDE", 4 * (6 + 2) - 2)
    save_grid(images, tmp_path / "half.png", columns=4)
    whole, half = (Image.open(tmp_path / f"{name}.png") for name in ("whole", "half"))
    assert (whole.size, half.size) == ((4 * 14 - 2, 3 * 10 - 2), (4 * 8 - 2, 3 * 6 - 2))
    for row, column in ((0, 0), (2, 1)):
        tile = whole.crop((column * 14, row * 10, column * 14 + 12, row * 10 + 8))
        place = (column * 8, row * 6)
        assert half.crop((*place, place[0] + 6, place[1] + 4)).tobytes() == tile.reduce(2).tobytes()
    monkeypatch.setattr(pictures, "LONGEST_SIDE", 4)
    save_grid(images[:1], tmp_path / "single.png")  # an image by itself keeps its size
    assert Image.open(tmp_path / "single.png").size == (12, 8)


def test_the_sheet_of_any_number_of_images_has_a_largest_size() -> None:
    for count in (16, 17, 256, 1000, 30_000):
        grid = Grid(count)
        grid.add(torch.zeros(1, 3, 1024, 1024))
        assert grid.sheet is not None and max(grid.sheet.size) <= pictures.LONGEST_SIDE
        assert (grid.sheet.width == 4 * 1026 - 2) is (count == 16)


@pytest.mark.parametrize("shape", [(4, 8, 8), (3, 5, 7), (1, 2, 2)])
def test_noise_by_batches_is_the_noise_of_all(shape: tuple[int, ...]) -> None:
    parts = list(noise_batches(11, shape, 5, batch=4))
    assert [len(part) for part in parts] == [4, 4, 3]
    assert torch.equal(torch.cat(parts), fixed_noise(11, shape, 5))


def test_prompts_are_encoded_with_their_images() -> None:
    asked: list[list[str]] = []

    def encode(prompts: list[str]) -> Condition:
        asked.append(list(prompts))
        return Condition(tuple(prompts), {"length": torch.tensor([len(prompt) for prompt in prompts])})

    reference = MagicMock(spec=Reference, encode=encode)
    conditions = encoded_later(reference, ["a", "bb", "ccc"], torch.device("cpu"))
    assert not asked and len(conditions) == 3
    assert conditions[[1, 2]].tensors["length"].tolist() == [2, 3] and asked == [["bb", "ccc"]]
