"""How hard HPSv2 and ImageReward pull at `pixart-onestep`: its network, autoencoder and both rewards at full size.

    python benchmarks/full_size_pull/run.py
    python benchmarks/full_size_pull/run.py --device cuda --steps 20

Three updates with the settings that come with the name, and three with `reward_scale=1`, the default where nothing is
recommended. All weights are random, so the numbers say whether the pull is held, and not what trained rewards pull by
themselves. Nothing is downloaded. Results go to `results.json` and `results.md` beside this file, after each case.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.full_size_step.case import PROMPTS, random_weights, use_plugins_of_the_checkout, where, write_prompts

NAME, BLUEPRINT = "pixart-onestep", "pixart-alpha"
HERE = Path(__file__).parent
REWARDS = {f"{HERE / 'rewards.py'}:RandomHPSv2": 1.0, f"{HERE / 'rewards.py'}:RandomImageReward": 1.0}
SMALL: dict[str, Any] = {
    "batch_size": 1, "precision": "bf16", "frozen_precision": "bf16", "eval_count": 1, "ema": 0.9,
    "recompute_generator": True, "gradient_checkpointing": True, "decode_checkpointing": True, "assistant_rounds": 1,
}  # fmt: skip
"""What two cores and 24 GB ask for; none of it changes what the pull is."""
CASES: dict[str, dict[str, Any]] = {"as recommended": {}, "reward_scale=1": {"reward_scale": 1.0}}


def measure(case: dict[str, Any], device: torch.device, steps: int, warm: int, work: Path) -> list[dict[str, float]]:
    """Metrics of the first updates, a row each."""
    from dipp_toolkit.config import make_config
    from dipp_toolkit.models.blueprints import find_pipeline
    from dipp_toolkit.registry import get_registry
    from dipp_toolkit.training.run import TrainingLoop
    from dipp_toolkit.training.run_state.run_folder import RunFolder
    from dipp_toolkit.training.setup.assembly import assemble
    from dipp_toolkit.training.setup.resolve import resolve
    from dipp_toolkit.utils.precision import DTYPES

    blueprint = find_pipeline(BLUEPRINT)
    prompts = work / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS), encoding="utf-8")
    write_prompts(blueprint, work / "cache", DTYPES[SMALL["frozen_precision"]])
    recommended = dict(get_registry().entries["generator"][NAME].defaults)
    pipeline = {"generator": str(blueprint.folder), "reference": str(blueprint.folder)}
    files = {"prompts": str(prompts), "prompt_cache": work / "cache"}
    rewards = {"rewards": REWARDS, "reward_options": {name: {"device": str(device)} for name in REWARDS}}
    given = {"steps": 10**6, "device": str(device), "assistant_warmup": warm}
    config = resolve(make_config({**recommended, **pipeline, **files, **rewards, **given, **SMALL, **case}))
    with random_weights(blueprint, device):
        loop = TrainingLoop(config, assemble(config), RunFolder(work / "run"))
    while not loop.is_warm:
        loop.warm_once()
    return [{name.replace(f"{HERE}/", ""): value for name, value in loop.one_step().items()} for _ in range(steps)]


def pulls(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The pull in each row and what made it, measured from the terms' logged gradients."""
    from dipp_toolkit.monitoring.diagnostic import Sides
    from dipp_toolkit.monitoring.diagnostics.pull import pull_of

    sides = Sides([name.removeprefix("grad_norm/") for name in rows[0] if "grad_norm/reward/" in name], ["integral_kl"])
    measured = [pull_of(row, sides) for row in rows]
    return [pull or {"ratio": float("nan"), "rewards": 0.0, "divergence": 0.0} for pull in measured]


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"`{NAME}` with HPSv2's and ImageReward's networks, all at full size with random weights; "
        f"{results['warm']} assistant updates before the first. {results['ran_on']}.", "",
        "| settings | update | rewards' gradient | divergence's gradient | pull |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for case, rows in results["cases"].items():
        for number, row in enumerate(pulls(rows), start=1):
            lines.append(f"| {case} | {number} | {row['rewards']:.3g} | {row['divergence']:.3g} | {row['ratio']:.3g} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=3, help="generator updates a case")
    parser.add_argument("--warm", type=int, default=2, help="assistant updates before the first")
    words = parser.parse_args()
    use_plugins_of_the_checkout()
    device = torch.device(words.device)
    results: dict[str, Any] = {"ran_on": where(device), "warm": words.warm, "cases": {}}
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as work:
            results["cases"][name] = measure(case, device, words.steps, words.warm, Path(work))
        gc.collect()
        (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        (HERE / "results.md").write_text(page(results), encoding="utf-8")
        print(page(results))


if __name__ == "__main__":
    main()
