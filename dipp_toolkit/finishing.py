"""What happens around the steps: images before, export and images after, the summary and the report."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .assembly import Assembled
from .config import TrainConfig
from .evaluation.comparison import Comparison, measure
from .generation import generate_images, sample_reference
from .model_card import write_model_card
from .roles import Generator
from .run_folder import RunFolder, write_text


def one_step_images(parts: Assembled, generator: Generator, config: TrainConfig) -> torch.Tensor:
    """Images of the comparison's prompts, one for each seed, `(prompts, seeds, 3, height, width)`."""
    sets = [
        generate_images(generator, parts.reference, parts.eval_conditions, config.seed + 1 + k, config.batch_size)
        for k in range(config.eval_seeds)
    ]
    return torch.stack(sets, dim=1)


def reference_images(parts: Assembled, config: TrainConfig) -> torch.Tensor:
    """The reference's images of the comparison's prompts from the same noise, `(prompts, seeds, 3, height, width)`."""
    guidance = config.guidance if config.reference_guidance is None else config.reference_guidance
    sets = [
        sample_reference(
            parts.reference,
            parts.eval_conditions,
            config.seed + 1 + k,
            config.reference_steps,
            guidance,
            config.batch_size,
        )
        for k in range(config.eval_seeds)
    ]
    return torch.stack(sets, dim=1)


def start_comparison(parts: Assembled, config: TrainConfig, folder: RunFolder) -> None:
    """Make and keep the generator's images before the first step."""
    before = one_step_images(parts, parts.generator, config)
    seeds = [config.seed + 1 + k for k in range(config.eval_seeds)]
    Comparison(list(parts.eval_conditions.prompts), seeds, {"before": before}).save(folder.comparison)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of `metrics.jsonl`."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _mean_of(rows: Sequence[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def environment(device: torch.device) -> dict[str, str]:
    """What the run ran on, for the report."""
    import diffusers

    from . import __version__

    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.processor() or platform.machine()} CPU"
    )
    return {
        "device": f"{name}, {torch.get_num_threads()} threads" if device.type == "cpu" else name,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "dipp_toolkit": __version__,
        "platform": platform.platform(),
    }


def finish(
    parts: Assembled, config: TrainConfig, folder: RunFolder, seconds: float, problems: Sequence[str] = ()
) -> dict[str, Any]:
    """Export the averaged generator, measure before and after, and write summary and report.

    Returns:
        What `summary.json` holds.
    """
    from .report import write_report

    with parts.average.applied():
        parts.generator.save_pretrained(folder.final, parts.assistant.denoiser.network)
        after = one_step_images(parts, parts.generator, config)
    earlier = Comparison.load(folder.comparison)
    images = {"reference": reference_images(parts, config), "before": earlier.images["before"], "after": after}
    comparison = Comparison(earlier.prompts, earlier.seeds, images)
    comparison.save(folder.comparison)
    # Measured as saved, in 8 bits: anyone can measure the same pictures again.
    comparison = Comparison.load(folder.comparison)
    rows = read_metrics(folder.metrics)
    window = max(1, len(rows) // 20)
    summary: dict[str, Any] = measure(comparison, parts.rewards, parts.judge, device=parts.device) | {
        "divergence": {
            "before": _mean_of(rows[:window], "divergence"),
            "after": _mean_of(rows[-window:], "divergence"),
        },
        "seconds": seconds,
        "steps": config.steps,
        "seed": config.seed,
        "generator": config.generator,
        "reference": config.reference,
        "reference_steps": config.reference_steps,
        "environment": environment(parts.device),
    }
    said = [one for weighted in parts.engine.terms for one in getattr(weighted.term, "warnings", list)()]
    summary["warnings"] = [*problems, *said, *warnings_of(summary)]
    if (folder.final / "model_index.json").is_file():
        write_model_card(folder.final, config, summary)
    write_text(folder.summary, json.dumps(summary, indent=2) + "\n")
    write_report(folder.path)
    return summary


def warnings_of(summary: dict[str, Any]) -> list[str]:
    """Sentences about what looks wrong in a finished run.

    - reward hacking: a trained reward's interval rose above its start while the judge's fell below its own;
    - diversity collapse: diversity under 0.9 of the start.
    """
    found = []
    judge = summary.get("judge")
    rose = [name for name, one in summary["rewards"].items() if one["after"]["low"] > one["before"]["high"]]
    if judge and rose and judge["after"]["high"] < judge["before"]["low"]:
        found.append(
            f"{', '.join(rose)} rose while the judge {judge['name']}, which was not trained on, fell: the reward is "
            "being hacked. Lower reward_scale, or train fewer steps."
        )
    diversity = summary["diversity"]
    if diversity["after"] < 0.9 * diversity["before"]:
        found.append(
            f"Diversity fell to {diversity['after'] / diversity['before']:.2f} of the start: different noises give "
            "more alike images than before. Lower reward_scale or guidance."
        )
    return found
