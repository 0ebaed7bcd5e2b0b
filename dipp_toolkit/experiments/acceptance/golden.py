"""Golden numbers: what a reward gives for fixed images, kept beside its plugin with where they come from.

`golden.json` in a plugin's package holds, by reward, a list of `Golden`. A number holds for the weights that it was
measured with and no others, so each is kept under their SHA-256.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import RequestError, first_line
from ...registry import get_registry
from ...utils.atomic import write_text
from ...utils.fingerprint import networks_in, weights_digest
from ...utils.json_files import read_json
from ...utils.json_forms import mistake_in
from .weights_used import WeightFile

if TYPE_CHECKING:
    from .subject import Subject


from functools import cache

import torch
from torch import Tensor

from ...utils.images import Images

NAME = "folded-waves-1"
"""Of this set; other images, or other prompts, have another name."""
SIDE = 256
PERIODS = ((3, 5, 7), (11, 2, 5), (1, 13, 4), (6, 6, 17))
"""Of each image: how fast each channel goes across, down and along the diagonal."""
PROMPTS = ("a red fox in the snow", "abstract colours", "an old sailor as an oil painting", "two small dogs") * 2
"""One an image; the second four see the images in another order."""
ORDER = (0, 1, 2, 3, 2, 3, 1, 0)


@cache
def _pictures() -> Tensor:
    down, across = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    images = []
    for a, b, c in PERIODS:
        channels = []
        for number, (x, y) in enumerate(((a, b), (b, c), (c, a))):
            wave = (across * x + down * y + 37 * number) % 512  # up and down again, twice 256 levels
            channels.append(torch.where(wave < 256, wave, 511 - wave))
        images.append(torch.stack(channels))
    return torch.stack(images)


def golden_images() -> Images:
    """The images, in [0, 1] with 256 levels, `(8, 3, 256, 256)`."""
    return _pictures()[list(ORDER)].float() / 255


FILE = "golden.json"
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Golden(BaseModel):
    """What a reward gave once.

    Attributes:
        weights: the key: SHA-256 of the weight files, `+` between several, or `state-` and that of the tensors.
        version: of the reward, where it has several that are meant to differ; numbers of another one say nothing.
        images: name of the set of images and prompts.
        scores: one an image.
        tolerance: by how much a score may differ on another machine.
        origin: who measured it, with what, and when.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str
    version: str = ""
    images: str
    scores: tuple[Finite, ...]
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    origin: str


def weights_key(reward: Any, files: Sequence[WeightFile]) -> str:
    """What golden numbers of a reward are kept under.

    Args:
        reward: as loaded.
        files: its own weight files, in order; none where its plugin says nothing of files.
    """
    if files:
        return "+".join(file.sha256 for file in files)
    return f"state-{weights_digest(networks_in(reward))}"


def golden_of(name: str) -> list[Golden]:
    """The golden numbers of a reward for these images; none where its plugin has none.

    Args:
        name: a registered reward; of any other one nothing is known.

    Raises:
        RequestError: the plugin's file is damaged.
    """
    registry = get_registry()
    entry = registry.entries["reward"].get(name)
    place = getattr(registry.manager.get_plugin(entry.plugin), "__file__", None) if entry is not None else None
    path = Path(place).with_name(FILE) if place else None
    if path is None or not path.is_file():
        return []
    return [golden for golden in read_golden(path).get(name, []) if golden.images == NAME]


def read_golden(path: Path) -> dict[str, list[Golden]]:
    """A file of golden numbers.

    Raises:
        RequestError: it is damaged.
    """
    content = read_json(path)
    try:
        return {name: [Golden.model_validate(row) for row in rows] for name, rows in content.items()}
    except (ValidationError, TypeError) as error:
        wrong = mistake_in(error) if isinstance(error, ValidationError) else first_line(error)
        raise RequestError(f"{path} is not a file of golden numbers: {wrong}.") from error


def write_golden(path: Path, measured: Mapping[str, Golden]) -> None:
    """Put measured numbers into a file, beside those of other rewards and weights that it has.

    Raises:
        RequestError: the existing file is not one of golden numbers, or it cannot be written.
    """
    goldens = read_golden(path) if path.exists() else {}
    for name, golden in measured.items():
        others = [
            entry for entry in goldens.get(name, []) if (entry.weights, entry.images) != (golden.weights, golden.images)
        ]
        goldens[name] = [*others, golden]
    rows = {name: [entry.model_dump(mode="json") for entry in entries] for name, entries in sorted(goldens.items())}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(rows, indent=1) + "\n")
    except OSError as error:
        raise RequestError(f"Cannot write {path}: {error.strerror or error}.") from error


def measured_golden(subject: Subject) -> dict[str, Golden]:
    """What an acceptance's rewards gave, as golden numbers of theirs."""
    import torch

    where = torch.cuda.get_device_name(subject.device) if subject.device.type == "cuda" else subject.device.type
    return {
        name: Golden(
            weights=scored.weights,
            version=scored.version,
            images=NAME,
            scores=scored.scores,
            tolerance=tolerance_of(scored.scores),
            origin=f"measured by dipp accept on {where}, torch {torch.__version__}, {datetime.now(UTC).date()}",
        )
        for name, scored in subject.scores.items()
    }


def tolerance_of(scores: Sequence[float]) -> float:
    """By how much scores may differ between machines: a thousandth of their size, or five of their spread."""
    spread = max(scores) - min(scores)
    return float(f"{max(1e-3 * max(map(abs, scores)), 5e-3 * spread, 1e-5):.1e}")
