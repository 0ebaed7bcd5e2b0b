"""A synthetic run folder: everything a report reads, without a training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from dipp_toolkit.config import make_config
from dipp_toolkit.evaluation.comparison import Comparison


def interval(mean: float, half: float = 0.1) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def fake_metrics(rewards: dict[str, float], steps: int) -> list[dict[str, float]]:
    """Curves of a plausible run."""
    random = torch.Generator().manual_seed(0)

    def noisy(value: float, size: float) -> float:
        return value + size * float(torch.randn((), generator=random))

    rows = []
    terms = ["integral_kl", *(f"reward/{name}" for name in rewards)]
    for step in range(1, steps + 1):
        rise = 1 - math.exp(-3 * step / steps)
        row = {"step": step, "divergence": noisy(0.004 + 0.02 * rise, 0.004), "score_gap/integral_kl": 0.1}
        row["kl/integral_kl"] = 0.01 + 0.03 * rise
        row |= {f"reward/{name}": noisy(-1.2 + (1.7 + k) * rise, 0.2) for k, name in enumerate(rewards)}
        row |= {f"grad_norm/{term}": abs(noisy(0.02 * 4**k, 0.003)) + 1e-3 for k, term in enumerate(terms)}
        for k, a in enumerate(terms):
            row |= {f"cosine/{a}/{b}": noisy(-0.2 * rise if k == 0 else 0.15, 0.05) for b in terms[k + 1 :]}
        row |= {"assistant_loss": noisy(0.08 - 0.02 * rise, 0.006), "seconds": 0.9 * step, "images_per_second": 35.0}
        rows.append(row | {"memory_mb": 1210.0})
    return rows


def write_run(
    folder: Path,
    *,
    rewards: dict[str, float] | None = None,
    summary: dict[str, Any] | None = None,
    images: dict[str, torch.Tensor] | None = None,
    prompts: list[str] | None = None,
    steps: int = 40,
    settings: dict[str, Any] | None = None,
) -> Path:
    """Write a run folder with everything a report reads."""
    rewards = {"emoji-preference": 1.0, "emoji-clip": 0.5} if rewards is None else rewards
    if images is None:
        random = torch.Generator().manual_seed(1)
        names = ("reference", "before", "after")
        images = {name: torch.rand(14, 2, 3, 16, 16, generator=random) for name in names}
    count, seeds = next(iter(images.values())).shape[:2]
    prompts = prompts or [f"prompt <{index}> & more" for index in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    config = make_config(
        {
            "generator": "emoji-onestep", "reference": "emoji-reference", "rewards": rewards,
            "prompts": "emoji-train", "eval_prompts": "emoji-heldout", "judge": "emoji-judge",
            "steps": steps, "learning_rate": 3e-5, **(settings or {}),
        }
    )  # fmt: skip
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    lines = [json.dumps(row) + "\n" for row in fake_metrics(rewards, steps)]
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    columns = {"reference": interval(0.3), "before": interval(-1.2), "after": interval(0.45)}
    whole = {
        "rewards": dict.fromkeys(rewards, columns),
        "judge": {"name": "emoji-judge", **columns},
        "gain": {name: interval(1.65, 0.05) for name in [*rewards, "emoji-judge"]},
        "diversity": {"reference": 0.09, "before": 0.1, "after": 0.097},
        "divergence": {"before": 0.004, "after": 0.024},
        "seconds": 213.4, "seed": 0, "steps": steps, "generator": "emoji-onestep", "reference": "emoji-reference",
        "reference_steps": 50, "warnings": [],
        "environment": {"python": "3.12.1", "torch": "2.8.0", "device": "a CPU, 2 threads"},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(whole | (summary or {})), encoding="utf-8")
    Comparison(prompts, list(range(1, seeds + 1)), images).save(folder / "samples" / "comparison")
    return folder
