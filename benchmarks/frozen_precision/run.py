"""What frozen weights in fewer bits cost in accuracy, on the emoji world, in float32 passes on a CPU.

    python benchmarks/frozen_precision/run.py [--steps 40] [--seeds 2]

For each `frozen_precision`, against float32:

- the generator's gradient of the divergence in the first step, its cosine: with all weights trained, where
  only the reference is in fewer bits, and by adapters, where they lie over the same weights;
- short trainings by adapters from the same seeds: judge and reward of the generator as trained, over frozen weights in
  fewer bits, and of what is exported, whose adapter is merged into the weights as they were before.

Passes are float32 for all of them, but for `bf16` and what `int8` and `nf4` leave in bfloat16. bitsandbytes has to be
installed. Writes results.json, whose runs are not made again, and results.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dipp_toolkit import TrainConfig, load_generator, train
from dipp_toolkit.config import make_config
from dipp_toolkit.experiments.profile.memory import held_by_owner
from dipp_toolkit.training.finishing import one_step_images
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.device import environment

HERE = Path(__file__).parent
KINDS = ("fp32", "bf16", "int8", "nf4")
COMMON: dict[str, Any] = {"generator": "emoji-onestep", "device": "cpu", "precision": "fp32", "lora_rank": 16}


def settings(kind: str, **more: Any) -> TrainConfig:
    """A run's, resolved."""
    return resolve(make_config({**COMMON, "frozen_precision": kind, **more}))


def first_gradient(kind: str, mode: str) -> tuple[Tensor, int]:
    """The generator's gradient of the divergence in the first step, and the bytes of the reference."""
    config = settings(kind, mode=mode, batch_size=16, rewards={}, judge=None, floors={})
    parts = assemble(config)
    found: list[Tensor] = []
    parts.engine.optimizer.register_step_pre_hook(
        lambda optimizer, *_: found.append(
            torch.cat(
                [p.grad.flatten() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            )
        )
    )
    rows = parts.conditions[list(range(config.batch_size))]
    parts.engine.step([rows] * (parts.engine.assistant_rounds + 1))
    return found[0], held_by_owner(parts)["reference"]


def short_run(kind: str, seed: int, steps: int) -> dict[str, float]:
    """Judge and reward after a training, as trained and as exported."""
    folder = Path(tempfile.mkdtemp(prefix="frozen-"))
    try:
        more = {"mode": "lora", "batch_size": 8, "steps": steps, "seed": seed, "eval_count": 64, "reference_steps": 2}
        config = settings(kind, **more, out=str(folder / "run"))
        started = time.process_time()
        summary = train(config).summary
        seconds = time.process_time() - started
        parts = assemble(settings("fp32", **more))
        images = one_step_images(parts, load_generator(str(folder / "run" / "final")), config)
        assert parts.judge is not None
        prompts = [text for text in parts.eval_conditions.prompts for _ in range(images.shape[1])]
        with torch.no_grad():
            exported = parts.judge[1](images.flatten(0, 1), prompts).mean()
        judged = summary["judge"]
        return {
            "judge before": judged["before"]["mean"], "judge": judged["after"]["mean"], "exported": float(exported),
            "processor seconds": seconds,
        }  # fmt: skip
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="of the short trainings")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each kind")
    options = parser.parse_args()
    path = HERE / "results.json"
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    gradients = results.setdefault("gradients", {})
    for mode in ("full", "lora"):
        missing = [kind for kind in KINDS if f"{mode} {kind}" not in gradients]
        exact = first_gradient("fp32", mode)[0] if missing else torch.empty(0)
        for kind in missing:
            own, size = first_gradient(kind, mode)
            cosine = float(F.cosine_similarity(own.double(), exact.double(), dim=0))
            gradients[f"{mode} {kind}"] = {"cosine": cosine, "reference": size}
            path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    runs = results.setdefault("runs", {})
    for seed in range(options.seeds):
        for kind in KINDS:
            name = f"{kind}, seed {seed}, {options.steps} steps"
            if name not in runs:
                runs[name] = short_run(kind, seed, options.steps)
                results["environment"] = environment(torch.device("cpu"))
                path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    text = table(results, options.steps, options.seeds)
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


def table(results: dict[str, Any], steps: int, seeds: int) -> str:
    """Both measurements, a row a kind."""
    rows = [
        "| `frozen_precision` | reference | cosine of the gradient, all weights | by adapters | judge before | after | "
        "of the export |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        full, lora = results["gradients"][f"full {kind}"], results["gradients"][f"lora {kind}"]
        runs = [results["runs"][f"{kind}, seed {seed}, {steps} steps"] for seed in range(seeds)]
        mean = {name: sum(run[name] for run in runs) / seeds for name in runs[0]}
        rows.append(
            f"| `{kind}` | {full['reference'] / 2**20:.1f} MiB | {full['cosine']:.4f} | {lora['cosine']:.4f} | "
            f"{mean['judge before']:.3f} | {mean['judge']:.3f} | {mean['exported']:.3f} |"
        )
    return "\n".join(rows) + (
        f"\n\nEmoji world; gradient of the divergence in the first step, batch 16, against float32; means of {seeds} "
        f"trainings of {steps} steps by adapters of rank 16, batch 8. "
        f"torch {results['environment']['torch']}, on a CPU.\n"
    )


if __name__ == "__main__":
    main()
