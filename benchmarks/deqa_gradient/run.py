"""The scores and the gradient of `deqa@isolated` against the original package and against finite differences.

    dipp reward install deqa
    python benchmarks/deqa_gradient/run.py --work runs/deqa-gradient

There are no published weights here. `original.py` runs in the reward's own environment, makes a tiny mPLUG-Owl2 with
random weights in the published layout, and scores pictures of odd shapes by the steps of the package's `Scorer`.
`deqa@isolated` is held against these scores, and its gradient against central differences of its own scores along the
gradient and along four directions at random, by two steps.

Less than a minute of one core. Writes results.json and results.md, and fails where a score or a slope is wrong.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from benchmarks._shared.measuring import ran_on, write_results
from dipp_emoji.captions import pairs
from dipp_emoji.compose import compose
from dipp_toolkit import load_reward
from dipp_toolkit.rewards.isolated.environments import find_installed

HERE = Path(__file__).parent
COUNT, SIZE, DIRECTIONS = 8, (90, 71), 4
STEPS = (0.001, 0.0003)
"""Of central differences, in the largest pixel: the larger meets more curvature, the smaller more rounding."""


def pictures() -> Tensor:
    """Emoji compositions of an odd shape with noise, in 256 levels."""
    random = torch.Generator().manual_seed(7)
    table = torch.tensor(pairs(held_out=True))[:COUNT]
    images = F.interpolate(compose(table[:, 0], table[:, 1], random), size=SIZE, mode="bicubic").clamp(0, 1)
    return (images + 0.04 * torch.randn(images.shape, generator=random)).clamp(0, 1).mul(255).round().div(255)


def by_package(work: Path, images: Tensor) -> Tensor:
    """What the package says alone, in its environment."""
    python, script = str(find_installed("deqa").python), str(HERE / "original.py")
    save_file({"images": images.contiguous()}, work / "images.safetensors")
    if not (work / "tiny" / "config.json").is_file():
        subprocess.run([python, script, "weights", str(work / "tiny")], check=True)
    words = [str(work / name) for name in ("tiny", "images.safetensors", "scores.safetensors")]
    subprocess.run([python, script, "score", *words], check=True)
    return load_file(work / "scores.safetensors")["scores"]


def through(work: Path, precision: str, preprocess: str = "auto") -> Any:
    """The isolated reward of the tiny model."""
    return load_reward("deqa@isolated", checkpoint=str(work / "tiny"), precision=precision, preprocess=preprocess)


def slopes(reward: Any, images: Tensor) -> list[dict[str, float]]:
    """By the gradient and by differences, along the gradient and at random."""
    prompts = [""] * len(images)
    leaf = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(reward(leaf, prompts).sum(), leaf)
    random = torch.Generator().manual_seed(0)
    others = torch.randn(DIRECTIONS, *images.shape, generator=random) + gradient.sign()
    rows = []
    for number, direction in enumerate((gradient, *others)):
        way = direction / direction.abs().max()
        expected = float((gradient * way).double().sum())
        for step in STEPS:
            with torch.no_grad():
                above, below = (reward(images + sign * step * way, prompts).double().sum() for sign in (1, -1))
            found = float((above - below) / (2 * step))
            rows.append({"direction": number, "step": step, "gradient": expected, "differences": found})
    return rows


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| what | |",
        "|---|---|",
        f"| pictures | {COUNT} |",
        "| scores, from and to | {:.3f}, {:.3f} |".format(*results["range"]),
        f"| largest difference from the package, float32 | {results['package']:.1e} |",
        f"| largest difference of float16 from float32 | {results['half']:.1e} |",
    ]
    for step in STEPS:
        errors = [error(row) for row in results["slopes"] if row["step"] == step]
        lines.append(
            f"| largest relative error of a slope, {DIRECTIONS + 1} directions, step {step:g} | {max(errors):.1e} |"
        )
    return "\n".join(lines)


def error(row: dict[str, float]) -> float:
    """Of the gradient's slope, relative to the differences'."""
    return abs(row["gradient"] - row["differences"]) / abs(row["differences"])


def main() -> None:
    """Compute, compare, write the table, and fail where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/deqa-gradient"))
    work = parser.parse_args().work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    images, prompts = pictures(), [""] * COUNT
    theirs = by_package(work, images)
    wide, half, smooth = through(work, "fp32"), through(work, "fp16"), through(work, "fp32", "tensor")
    try:
        ours = wide(images, prompts)
        results: dict[str, Any] = {
            "range": [float(theirs.min()), float(theirs.max())],
            "package": float((ours - theirs).abs().max()),
            "half": float((half(images, prompts) - ours).abs().max()),
            "slopes": slopes(smooth, 0.1 + 0.8 * images),
        }
    finally:
        for reward in (wide, half, smooth):
            reward.close()
    note = (
        "A tiny mPLUG-Owl2 of random weights in the package's own format. The published weights have not been run. "
        f"{ran_on(torch.device('cpu'))}"
    )
    text = f"{table(results)}\n\n{note}\n"
    write_results(HERE, results, text)
    print(text)
    least = [
        min(error(row) for row in results["slopes"] if row["direction"] == number) for number in range(1 + DIRECTIONS)
    ]
    if not (results["package"] < 1e-5 and max(least) < 0.01):
        sys.exit("The scores are not the package's, or the gradient is not that of the score.")


if __name__ == "__main__":
    main()
