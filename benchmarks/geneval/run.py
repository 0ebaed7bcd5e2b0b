"""Is GenEval's verdict right where what an image shows is known? 40 scenes of emoji, half of them wrong.

    python benchmarks/geneval/run.py

No published detector's weights are needed: a small one matches the glyphs of the emoji world (`finder.py`), as
`--set reward.geneval.detector=benchmarks/geneval/finder.py:EmojiFinder` would. `scenes.py` draws what a prompt asks
for, or fails it in the way that its task is about. Verdict, thresholds and metadata are those of the reward `geneval`,
which `geneval@isolated` shares. Half a minute on a core. Writes results.json and results.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.geneval.finder import EmojiFinder, nearest_tint
from benchmarks.geneval.scenes import NOISE, TASKS, Scene, draw, scenes
from dipp_geneval.reward import GenEval
from dipp_toolkit.evaluation.intervals import share_interval
from dipp_toolkit.utils.atomic import write_text
from dipp_toolkit.utils.device import environment

HERE = Path(__file__).parent
NOISES = (NOISE, 0.15)


def reward_of(
    made: Sequence[Scene], folder: Path, kind: type[GenEval] = GenEval, **options: Any
) -> tuple[GenEval, list[str]]:
    """The reward with the metadata of scenes, and each scene's prompt; a number makes prompts different."""
    rows = [{**scene.metadata.model_dump(by_alias=True), "prompt": _prompt(number, scene)} for number, scene in
            enumerate(made)]  # fmt: skip
    path = folder / "metadata.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return kind(EmojiFinder(), path, colours=nearest_tint, **options), [str(row["prompt"]) for row in rows]


def _prompt(number: int, scene: Scene) -> str:
    return f"{number}: {scene.metadata.prompt}"


def measured(count: int, noise: float, kind: type[GenEval] = GenEval) -> list[dict[str, Any]]:
    """A row a scene: its task, whether it is right, and the verdict of a variant of the reward."""
    made = scenes(count)
    generator = torch.Generator().manual_seed(0)
    images = torch.stack([draw(scene, generator, noise) for scene in made])
    with tempfile.TemporaryDirectory() as folder:
        reward, prompts = reward_of(made, Path(folder), kind)
        verdicts = reward.verdicts(images, prompts)
    return [
        {
            "noise": noise, "task": scene.metadata.tag, "prompt": scene.metadata.prompt, "right": scene.right,
            "correct": verdict.correct, "share": verdict.share, "reasons": list(verdict.reasons),
        }
        for scene, verdict in zip(made, verdicts, strict=True)
    ]  # fmt: skip


def page(rows: Sequence[dict[str, Any]], where: str) -> str:
    """The table: how many verdicts are the truth, by task and noise."""
    lines = ["| noise | task | scenes | verdict is true | 95 % (Wilson) | right ones passed | wrong ones refused |",
             "|---" * 7 + "|"]  # fmt: skip
    for noise in dict.fromkeys(row["noise"] for row in rows):
        for task in (*TASKS, "all"):
            some = [row for row in rows if row["noise"] == noise and task in (row["task"], "all")]
            hits = torch.tensor([float(row["correct"] == row["right"]) for row in some])
            interval = share_interval(hits)
            right, wrong = ([row for row in some if row["right"] is kind] for kind in (True, False))
            passed, refused = sum(row["correct"] for row in right), sum(not row["correct"] for row in wrong)
            lines.append(
                f"| {noise:g} | {task} | {len(some)} | {int(hits.sum())} | {interval.low:.2f} to {interval.high:.2f} | "
                f"{passed} of {len(right)} | {refused} of {len(wrong)} |"
            )
    return "\n".join(lines) + (
        "\n\nEmoji in one colour each on 192 by 192 pixels; noise is the standard deviation of what is added to every "
        "pixel. Detector and colour classifier are made for these scenes: the table is of the verdict's rules and of "
        "the way there, and not of Mask2Former or CLIP. With more noise the detector misses glyphs that are there, so "
        "that right scenes fail. What `geneval@isolated` makes of the same scenes is on "
        f"[its page](../../benchmarks/geneval/original.md). {where}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40, help="scenes at each noise")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for noise in NOISES for row in measured(arguments.scenes, noise)]
    about = environment(torch.device("cpu"))
    where = {name: about[name] for name in ("device", "python", "torch")}
    write_text(arguments.out / "results.json", json.dumps({"environment": where, "rows": rows}, indent=1) + "\n")
    write_text(
        arguments.out / "results.md",
        page(rows, f"{where['device']}, python {where['python']}, torch {where['torch']}."),
    )
    print((arguments.out / "results.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
