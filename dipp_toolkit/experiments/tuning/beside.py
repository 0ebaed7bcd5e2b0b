"""The images of a tuning side by side: before, tuned, the naive way, the tuned reference; and what the judge says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, model_validator

from ...config import TrainConfig
from ...evaluation.comparison import Comparison, numbers_of, score_columns
from ...models.loading import load_generator, load_reference
from ...models.sampling import generate_images
from ...protocols import moved
from ...report.before_after import draw_before_after
from ...report.shown_prompts import choose_prompts
from ...report.strips import strips_of
from ...rewards.loading import load_reward
from ...utils.atomic import write_text
from ...utils.device import choose_device
from ...utils.images import write_png
from ...utils.json_files import read_json
from ...utils.json_forms import in_form
from .listening import Listener

REPORT, COMPARISON, PICTURE, SUMMARY = "report", "comparison", "beside.png", "summary.json"
AGAIN = "Remove it; the same command writes it again."
NOTES = {
    "before": "untuned, as many steps as it takes",
    "after": "tuned, as many steps as it takes",
    "naive": "its own network by the denoising loss",
    "reference": "many steps",
}


class _Score(BaseModel):
    mean: float
    low: float
    high: float


class _Judge(BaseModel):
    """The judge's name, and its score of every column."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Score]
    name: str


class _Summary(BaseModel):
    """What is told of a finished tuning."""

    columns: list[str]
    judge: _Judge | None
    warnings: list[str]

    @model_validator(mode="after")
    def _scored(self) -> _Summary:
        known = self.columns if self.judge is None else self.judge.model_extra or {}
        missing = [name for name in self.columns if name not in known]
        if missing:
            raise ValueError(f"the judge has no score of {missing[0]}")
        return self


def write_beside(
    out: Path, config: TrainConfig, naive: bool, run: dict[str, Any], listener: Listener
) -> dict[str, Any]:
    """Write `OUT/report/`.

    Args:
        out: of the tuning; `run/` is finished.
        config: settings of its run.
        naive: whether there is a generator that was tuned naively.
        run: the run's summary.
        listener: told of the images that are made.

    Returns:
        What `report/summary.json` holds.
    """
    folder = out / REPORT
    ready = folder / SUMMARY
    if ready.is_file():
        saved = read_json(ready, then=AGAIN)
        known = in_form(saved, _Summary, str(ready), AGAIN)
        if not naive or "naive" in known.columns:
            return saved
    device = choose_device(config.device)
    ours = Comparison.load(out / "run" / "samples" / COMPARISON)
    columns = {name: ours.images[name] for name in ("before", "after")}
    if naive:
        columns["naive"] = _images_of(out / "naive", config, ours, device, listener)
    columns["reference"] = ours.images["reference"]
    comparison = Comparison(ours.prompts, ours.seeds, columns)
    folder.mkdir(exist_ok=True)
    comparison.save(folder / COMPARISON)
    comparison = Comparison.load(folder / COMPARISON)
    judges = {}
    if config.judge is not None:
        judges[config.judge] = moved(load_reward(config.judge, **config.options_of(config.judge)), device)
    numbers = numbers_of(comparison, score_columns(comparison, judges, device=device), config.judge)
    shown = choose_prompts(comparison.prompts, None)
    picture = draw_before_after(comparison.prompts, columns, NOTES, strips_of(shown, comparison.prompts))
    write_png(picture, folder / PICTURE, optimize=True)
    summary = {
        "generator": str(out / "run" / "final"),
        "reference": str(out / "reference"),
        "adapter": str(out / "reference-adapter"),
        "columns": list(columns),
        "judge": numbers["judge"],
        "diversity": numbers["diversity"],
        "steps": run["steps"],
        "warnings": run.get("warnings") or [],
    }
    write_text(ready, json.dumps(summary, indent=2) + "\n")
    return summary


def _images_of(
    generator: Path, config: TrainConfig, ours: Comparison, device: torch.device, listener: Listener
) -> torch.Tensor:
    """A generator's images of the comparison's prompts from its noises."""
    reference = load_reference(config.reference or "").to(device)
    made = load_generator(str(generator))
    made.network.to(device)
    conditions = reference.encode(list(ours.prompts)).to(device)
    listener.begin("images of the naive way", len(ours.prompts) * len(ours.seeds))
    sets = []
    for seed in ours.seeds:
        sets.append(generate_images(made, reference, conditions, seed, config.batch_size))
        listener.advance(len(ours.prompts))
    return torch.stack(sets, dim=1)
