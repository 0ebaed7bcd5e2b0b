"""The comparison at the end of a run: the same prompts and noises before, after and by the reference."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel
from torch import Tensor

from ..errors import CheckpointError, RequestError, first_line
from ..protocols import Reward
from ..rewards.groups import parts_of
from ..rewards.scores import ask
from ..utils.atomic import write_text
from ..utils.images import Images
from ..utils.json_forms import in_form
from ..utils.paths import below
from .diversity import seed_diversity
from .image_sheets import read_sheets, write_sheets
from .intervals import effect_size, mean_interval, paired_interval

INDEX = "comparison.json"


class _Column(BaseModel):
    sheets: list[str]


class _Index(BaseModel):
    """What `comparison.json` says; one without columns has no size."""

    prompts: list[str]
    seeds: list[int]
    columns: dict[str, _Column]
    height: int = 0
    width: int = 0


@dataclass(frozen=True)
class Comparison:
    """Images of the same prompts and noises by different generators.

    Attributes:
        prompts: the P prompts.
        seeds: the S numbers that name the noises.
        images: images in [0, 1] by column name (`"before"`, `"after"`, `"reference"`, ...), each `(P, S, 3, H, W)`.

    Raises:
        ValueError: a column's name has other characters, or its images do not fit the prompts, seeds and other columns.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    images: Mapping[str, Float[Tensor, "prompts seeds 3 height width"]]

    def __post_init__(self) -> None:
        sizes = set()
        for name, images in self.images.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"A column's name has only letters, digits, - and _; got '{name}'.")
            if images.ndim != 5 or images.shape[:3] != (len(self.prompts), len(self.seeds), 3):
                expected = f"({len(self.prompts)}, {len(self.seeds)}, 3, height, width)"
                raise ValueError(
                    f"The images of the column '{name}' have shape {tuple(images.shape)}; expected {expected}."
                )
            sizes.add(tuple(images.shape[-2:]))
        if len(sizes) > 1:
            raise ValueError(f"The columns of a comparison hold images of one size; got {sorted(sizes)}.")

    def save(self, folder: Path) -> None:
        """Write lossless 8-bit PNG sheets and `comparison.json`, each whole or not at all.

        The index is written last and names every sheet, so that whatever ends the process in between, the comparison
        before it can be read, with the new pictures of columns that it has and that were made anew.

        Raises:
            OSError: a file cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        index: dict[str, Any] = {
            "prompts": list(self.prompts),
            "seeds": [int(seed) for seed in self.seeds],
            "columns": {},
        }
        for name, images in self.images.items():
            index["height"], index["width"] = images.shape[-2:]
            sheets, across = write_sheets(images.flatten(0, 1), folder, name, group=len(self.seeds))
            index["columns"][name] = {"sheets": sheets, "images_in_a_row": across}
        write_text(folder / INDEX, json.dumps(index, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path) -> Comparison:
        """Read what `save` wrote; the images come back rounded to 8 bits.

        Raises:
            CheckpointError: the folder holds no comparison, or it is damaged or names files outside of the folder.
        """
        try:
            index = in_form(json.loads((folder / INDEX).read_text(encoding="utf-8")), _Index, INDEX, "")
            each, columns = (len(index.prompts), len(index.seeds)), {}
            for name, column in index.columns.items():
                if not all(each):
                    raise ValueError("it has images of no prompt or no seed")
                sheets = [below(folder, sheet) for sheet in column.sheets]
                images = read_sheets(sheets, each[0] * each[1], index.height, index.width)
                columns[name] = images.unflatten(0, each)
            return cls(index.prompts, index.seeds, columns)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{folder} does not hold a complete comparison: {Path(error.filename).name} is missing."
            ) from None
        except RequestError as error:
            raise CheckpointError(f"The comparison in {folder} cannot be used: {error}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"The comparison in {folder} is damaged: {first_line(error)}.") from error


@torch.no_grad()
def score(
    reward: Reward,
    images: Images,
    prompts: Sequence[str],
    *,
    batch: int = 64,
    device: torch.device | str | None = None,
    name: str = "reward",
) -> Float[Tensor, " images"]:
    """Score images in batches, without gradients; float64 on the CPU, `(N,)`.

    Args:
        reward: scores a batch.
        images: in [0, 1], `(N, 3, H, W)`.
        prompts: one an image.
        batch: images at a time.
        device: where batches go before they are scored; None leaves them where they are.
        name: the reward's name, for messages.

    Raises:
        RunError: the reward returned something else than one finite score for each image.
    """
    parts = []
    for part in parts_of(reward, prompts, batch):
        shown = images[part] if device is None else images[part].to(device)
        parts.append(ask(name, reward, shown, prompts[part]).detach().cpu().double())
    return torch.cat(parts)


ColumnScores = Mapping[str, Mapping[str, Float[Tensor, "prompts seeds"]]]
"""By reward, then by column: the score of each prompt's image from each noise."""


def score_columns(
    comparison: Comparison,
    rewards: Mapping[str, Reward],
    *,
    batch: int = 64,
    device: torch.device | str | None = None,
) -> dict[str, dict[str, Float[Tensor, "prompts seeds"]]]:
    """Every reward's scores of every column's images.

    Args:
        comparison: the images, used as they are (not rounded to 8 bits).
        rewards: rewards by name, judges as well.
        batch: images scored at a time.
        device: where the rewards live; None leaves the images where they are.

    Raises:
        RunError: a reward returned something else than one finite score for each image.
    """
    prompts = [prompt for prompt in comparison.prompts for _ in comparison.seeds]
    shape = (len(comparison.prompts), len(comparison.seeds))
    return {
        name: {
            column: score(reward, images.flatten(0, 1), prompts, batch=batch, device=device, name=name).reshape(shape)
            for column, images in comparison.images.items()
        }
        for name, reward in rewards.items()
    }


def numbers_of(comparison: Comparison, scores: ColumnScores, judge: str | None = None) -> dict[str, Any]:
    """The numbers of `summary.json` that come from images and their scores.

    Args:
        comparison: the images.
        scores: as `score_columns` returns them.
        judge: the one among them that is the judge.

    Returns:
        `rewards`: `{name: {column: {"mean", "low", "high"}}}`, 95 % intervals over prompts;
        `judge`: `{"name": ..., column: {...}}`, or None;
        `gain`: `{name: {"mean", "low", "high", "effect"}}`, the paired change from the column `before` to `after`, the
        judge's included, and its size in standard deviations over prompts, None where neither column varies; empty
        where one of the two columns is missing;
        `diversity`: `{column: float}`, empty with a single noise a prompt.
    """
    measured = {
        name: {column: mean_interval(values).as_dict() for column, values in columns.items()}
        for name, columns in scores.items()
    }
    gain = {
        name: {
            **paired_interval(columns["before"], columns["after"]).as_dict(),
            "effect": effect if math.isfinite(effect := effect_size(columns["before"], columns["after"])) else None,
        }
        for name, columns in scores.items()
        if "before" in columns and "after" in columns
    }
    judged = {"name": judge, **measured.pop(judge)} if judge is not None else None
    several = len(comparison.seeds) > 1
    diversity = {name: seed_diversity(images) for name, images in comparison.images.items()} if several else {}
    return {"rewards": measured, "judge": judged, "diversity": diversity, "gain": gain}


def measure(
    comparison: Comparison,
    rewards: Mapping[str, Reward],
    judge: tuple[str, Reward] | None = None,
    *,
    batch: int = 64,
    device: torch.device | str | None = None,
) -> dict[str, Any]:
    """Score the columns and give the numbers: `score_columns`, then `numbers_of`.

    Raises:
        RunError: a reward returned something else than one finite score for each image.
    """
    everyone = {**rewards, **({judge[0]: judge[1]} if judge else {})}
    scores = score_columns(comparison, everyone, batch=batch, device=device)
    return numbers_of(comparison, scores, judge[0] if judge else None)
