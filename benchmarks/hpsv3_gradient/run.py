"""The gradient of `hpsv3@isolated` against the original package and against finite differences.

    dipp reward install hpsv3
    python benchmarks/hpsv3_gradient/run.py --work runs/hpsv3-gradient

There are no published weights here. `original.py` runs in the reward's own environment and makes a tiny Qwen2-VL with
random weights, its processor and a checkpoint of the package's model, in the published formats. Called without the
toolkit, the package scores 8 images, differentiates both outputs, and takes central differences along 16 directions
for each image, 8 of white noise and 8 smooth ones, by two steps. `hpsv3@isolated` is then held against all of it, a
bfloat16 model of the same weights against the float32 one, and two updates of `dipp train` on the emoji world have to
use the gradient.

Some 5 minutes of one core. What has been computed is kept in --work and not computed again. Writes results.json and
results.md, and fails where a cosine with the differences is not above 0.999.
"""

from __future__ import annotations

import argparse
import json
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
from dipp_toolkit import load_prompts, load_reward
from dipp_toolkit.protocols import texts
from dipp_toolkit.rewards.isolated.environments import find_installed

HERE = Path(__file__).parent
OUTPUTS = ("mu", "sigma")
COUNT, SIZE = 8, (96, 128)


def write_inputs(folder: Path) -> None:
    """Emoji compositions of an odd shape with noise, in 256 levels, and prompts of the held-out set."""
    folder.mkdir(parents=True, exist_ok=True)
    random = torch.Generator().manual_seed(7)
    table = torch.tensor(pairs(held_out=True))[:COUNT]
    images = F.interpolate(compose(table[:, 0], table[:, 1], random), size=SIZE, mode="bicubic")
    images = (images.clamp(0, 1) + 0.04 * torch.randn(images.shape, generator=random)).clamp(0, 1)
    prompts = texts(load_prompts("emoji-heldout"))
    (folder / "prompts.json").write_text(json.dumps(prompts[:: len(prompts) // COUNT][:COUNT]))
    save_file({"images": images.mul(255).round().div(255).contiguous()}, folder / "images.safetensors")


def by_package(work: Path) -> dict[str, Tensor]:
    """What the package says alone, in its environment."""
    python, script = str(find_installed("hpsv3").python), str(HERE / "original.py")
    output = work / "package.safetensors"
    if not (work / "tiny" / "HPSv3.safetensors").is_file():
        subprocess.run([python, script, "weights", str(work / "tiny")], check=True)
    if not output.is_file():
        words = [str(work / "tiny"), str(work / "inputs"), str(output)]
        subprocess.run([python, script, "measure", *words], check=True)
    return load_file(output)


def options(work: Path, width: str = "float32", output: str = "mu") -> dict[str, str]:
    """The reward's options for the tiny model."""
    tiny = work / "tiny"
    return {"checkpoint": str(tiny / "HPSv3.safetensors"), "config": str(tiny / f"{width}.yaml"), "output": output}


def through(work: Path, images: Tensor, prompts: list[str], width: str, output: str) -> dict[str, Tensor]:
    """What `hpsv3@isolated` says: scores of pictures, scores of tensors, and the gradient."""
    reward: Any = load_reward("hpsv3@isolated", **options(work, width, output))
    try:
        assert reward.differentiable is True
        leaf = images.clone().requires_grad_(True)
        scores = reward(leaf, prompts)
        (gradient,) = torch.autograd.grad(scores.sum(), leaf)
        return {"pictures": reward(images, prompts), "tensors": scores.detach(), "gradient": gradient}
    finally:
        reward.close()


def least_cosine(first: Tensor, second: Tensor) -> float:
    """Over the images, of everything else; float64."""
    rows = F.cosine_similarity(first.double().flatten(1), second.double().flatten(1), dim=1)
    return float(rows.min())


def gap(first: Tensor, second: Tensor) -> float:
    """The largest difference."""
    return float((first.double() - second.double()).abs().max())


def rows_of(output: str, ours: dict[str, Tensor], package: dict[str, Tensor]) -> list[dict[str, Any]]:
    """One output of the float32 model by `hpsv3@isolated`, against the package and its differences of either step."""
    column = OUTPUTS.index(output)
    theirs = {
        way: package[way][:, column] if output == "mu" else package[way][:, column].exp()
        for way in ("pictures", "tensors")
    }
    gradient = ours["gradient"].double()
    along = torch.einsum("kbchw,bchw->bk", package["directions"].double(), gradient)
    half = along.shape[1] // 2
    same = {
        "output": output, "images": len(gradient),
        "scores": [float(theirs["tensors"].min()), float(theirs["tensors"].max())],
        "pictures": gap(ours["pictures"], theirs["pictures"]), "tensors": gap(ours["tensors"], theirs["tensors"]),
        "gradient": gap(gradient, package[f"gradient/{output}"]),
    }  # fmt: skip
    return [
        same | {
            "step": step, "white": least_cosine(along[:, :half], slopes[:, :half]),
            "smooth": least_cosine(along[:, half:], slopes[:, half:]), "all": least_cosine(along, slopes),
            "error": float((along - slopes).norm() / slopes.norm()),
        }
        for step, slopes in zip(package["steps"].tolist(), package["slopes"][:, :, column].mT, strict=True)
    ]  # fmt: skip


def train(work: Path) -> dict[str, Any]:
    """Two updates on the emoji world, sigma watched on held-out prompts; what the run wrote of them."""
    out, words = work / "train", []
    for name, output in (("hpsv3@isolated", "mu"), ("hpsv3@hpsv3", "sigma")):
        for key, value in options(work, output=output).items():
            words += ["--set", f"reward.{name}.{key}={value}"]
    small = {
        "batch_size": 2, "eval_count": 2, "monitor_count": 2, "monitor_every": 2, "monitor_rewards": "hpsv3@hpsv3",
    }  # fmt: skip
    for key, number in small.items():
        words += ["--set", f"{key}={number}"]
    command = [sys.executable, "-m", "dipp_cli", "train", "--reward", "hpsv3@isolated", "--steps", "2"]
    if not (out / "summary.json").is_file():
        subprocess.run([*command, "--device", "cpu", "--out", str(out), *words], check=True)
    updates = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    monitors = [json.loads(line) for line in (out / "monitors.jsonl").read_text().splitlines()]
    return {
        "mu": [row["reward/hpsv3@isolated"] for row in updates],
        "gradient": [row["grad_norm/reward/hpsv3@isolated"] for row in updates],
        # An estimator for black boxes would log numbers of its own.
        "others": sorted(name for name in updates[-1] if "hpsv3" in name),
        "sigma": [row["rewards"]["hpsv3@hpsv3"]["mean"] for row in monitors],
    }


def short(cosine: float) -> str:
    """A cosine as what it lacks of 1."""
    return "1" if 1 - cosine < 1e-12 else f"1 \N{MINUS SIGN} {1 - cosine:.1e}"


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| output | images | from, to | largest difference from the package: pictures | tensors | gradient "
        "| step of the central differences | least cosine with them: white noise | smooth | all 16 directions "
        "| their relative error |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["outputs"]:
        low, high = row["scores"]
        lines.append(
            f"| `{row['output']}` | {row['images']} | {low:.3f}, {high:.3f} | {row['pictures']:.1e} | "
            f"{row['tensors']:.1e} | {row['gradient']:.1e} | {row['step']:g} | {short(row['white'])} | "
            f"{short(row['smooth'])} | {short(row['all'])} | {row['error']:.1e} |"
        )
    trained = results["training"]
    lines += [
        "",
        "| beside that | |",
        "|---|---|",
        "| pictures, by the differentiable processor and by the stock one: largest difference of both outputs | "
        f"{results['processors']:.1e} |",
        f"| pictures and tensors: largest difference of `mu` | {results['ways']:.1e} |",
        f"| a batch of {COUNT} and one image at a time: largest difference of both outputs | {results['alone']:.1e} |",
        f"| bfloat16 and float32: largest difference of `mu` | {results['bfloat16']['mu']:.1e} |",
        f"| bfloat16 and float32: least cosine of the gradient | {results['bfloat16']['cosine']:.4f} |",
        "| two updates of `dipp train`: `mu` | " + ", ".join(f"{value:.4f}" for value in trained["mu"]) + " |",
        "| the same updates: `grad_norm`, the size of its weighted gradient | "
        + ", ".join(f"{value:.2e}" for value in trained["gradient"])
        + " |",
        "| `sigma` on held-out prompts, before and after | "
        + ", ".join(f"{value:.4f}" for value in trained["sigma"])
        + " |",
    ]
    return "\n".join(lines)


def main() -> None:
    """Compute what has not been, compare, write the tables, and fail where a gradient is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/hpsv3-gradient"))
    work = parser.parse_args().work.resolve()
    if not (work / "inputs" / "images.safetensors").is_file():
        write_inputs(work / "inputs")
    package = by_package(work)
    images = load_file(work / "inputs" / "images.safetensors")["images"]
    prompts = json.loads((work / "inputs" / "prompts.json").read_text())
    ours = {output: through(work, images, prompts, "float32", output) for output in OUTPUTS}
    narrow = through(work, images, prompts, "bfloat16", "mu")
    results: dict[str, Any] = {
        "outputs": [row for output in OUTPUTS for row in rows_of(output, ours[output], package)],
        "processors": gap(package["pictures"], package["plain"]),
        "ways": gap(package["pictures"][:, 0], package["tensors"][:, 0]),
        "alone": gap(package["alone"], package["tensors"]),
        "bfloat16": {
            "mu": gap(narrow["tensors"], ours["mu"]["tensors"]),
            "cosine": least_cosine(narrow["gradient"], ours["mu"]["gradient"]),
        },
        "training": train(work),
    }
    note = (
        f"A tiny Qwen2-VL of random weights in the package's own format, float32 unless said otherwise; images of "
        f"{SIZE[0]}x{SIZE[1]}. The published weights have not been run. {ran_on(torch.device('cpu'))}"
    )
    text = f"{table(results)}\n\n{note}\n"
    write_results(HERE, results, text)
    print(text)
    wrong = {row["output"] for row in results["outputs"] if not (row["all"] > 0.999 and row["gradient"] < 1e-6)}
    if wrong:
        sys.exit(f"The gradient of {' and '.join(sorted(wrong))} is not that of the score.")


if __name__ == "__main__":
    main()
