"""A judge behind an OpenAI-style server trains the emoji world, loses its server half-way, and is replayed without it.

    python benchmarks/judge/run.py --seeds 1 --steps 100 --work runs/judge

The server hides `emoji-judge`: asked whether an image shows its caption, it says *Yes* with the probability
sigma(score), as log-probabilities of the answer's first word and in nothing else. The trainer knows the server's
address alone, and makes a gradient of the answers by smoothing. Half-way the server dies: the run ends with a sentence,
is resumed with the server back, and goes on to its end. Then the whole run is done again with no server at all.
Reported are the hidden score on held-out prompts, how many questions were asked and how many of them twice, and whether
the replayed weights have the same bits. Finished runs are not run again. Writes results.json and results.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from starlette.responses import Response
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._shared.chat_server import ChatServer, chatting, choice
from dipp_emoji.judge import EmojiJudge
from dipp_toolkit import TrainConfig, train
from dipp_toolkit.config import make_config
from dipp_toolkit.errors import RunError
from dipp_toolkit.evaluation.comparison import Comparison
from dipp_toolkit.evaluation.intervals import paired_interval
from dipp_toolkit.utils.device import environment

HERE = Path(__file__).parent
CAPTION = re.compile(r'"(.*)"')
MODEL = "hidden"
BATCH, DIRECTIONS = 16, 8
"""Samples of an update, and directions that each is moved along: two answers a direction, and one more."""


class Hidden:
    """The emoji judge as a language model that answers yes or no."""

    def __init__(self) -> None:
        self.judge = EmojiJudge()

    @torch.no_grad()
    def __call__(self, text: str, images: Sequence[Tensor]) -> dict[str, Any]:
        found = CAPTION.search(text)
        assert found is not None
        score = float(self.judge(images[0][None], [found[1]]))
        return choice("Yes" if score > 0 else "No", Yes=-math.log1p(math.exp(-score)), No=-math.log1p(math.exp(score)))


def settings(name: str, seed: int, steps: int, out: Path, **changes: Any) -> TrainConfig:
    """One run's settings; the judge's own score is watched and not trained on."""
    shared = {
        "generator": "emoji-onestep", "rewards": {name: 1.0}, "judge": "emoji-judge", "pull": 2.6, "steps": steps,
        "cooldown": steps // 4, "seed": seed, "out": out, "precision": "fp32", "eval_count": 96, "reference_steps": 1,
        "black_box": "smoothing", "black_box_pairs": DIRECTIONS, "batch_size": BATCH,
        "checkpoint_every": 10, "sample_every": steps, "monitor_every": 0, "diagnose_every": 0,
        "resume": (out / "config.yaml").is_file(),
    }  # fmt: skip
    return make_config(shared | changes)


def run(hidden: Hidden, seed: int, steps: int, port: int, work: Path) -> dict[str, Any]:
    """Train, lose the server, go on, replay."""
    name, out = f"judge:http://127.0.0.1:{port}/v1?model={MODEL}", work / f"seed-{seed}"
    record = out.with_suffix(".json")
    if record.is_file():
        return dict(json.loads(record.read_text()))
    cache = work / f"answers-{seed}.sqlite"
    for old in work.glob(f"{cache.name}*"):
        old.unlink()
    ways = {"reward_options": {name: {"cache": str(cache), "retries": 0}}}
    server: ChatServer
    half = BATCH * (2 * DIRECTIONS + 1) * steps // 2

    def dies(text: str, images: Sequence[Tensor]) -> Response | dict[str, Any]:
        return Response("", 500) if len(server.asked) > half else hidden(text, images)

    with chatting(dies, port, model=MODEL) as server:
        try:
            train(settings(name, seed, steps, out, **ways))
            said = ""
        except RunError as error:
            said = str(error).partition(" Go on with")[0]
    asked = [digest(body) for body in server.asked[:half]]
    with chatting(hidden, port, model=MODEL) as server:
        summary = train(settings(name, seed, steps, out, **ways)).summary
    asked += [digest(body) for body in server.asked]
    replayed = train(settings(name, seed, steps, work / f"seed-{seed}-replayed", **ways)).summary
    final = Path("final") / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = [folder / final for folder in (out, work / f"seed-{seed}-replayed")]
    result = {
        "judge": summary["judge"],
        "replayed_judge": replayed["judge"],
        "said": said,
        "asked": len(asked),
        "twice": len(asked) - len(set(asked)),
        "same_bits": len({path.read_bytes() for path in weights}) == 1,
    }
    record.write_text(json.dumps(result, indent=1))
    return result


@torch.no_grad()
def paired_change(judge: EmojiJudge, out: Path) -> dict[str, float]:
    """The change of the hidden score prompt by prompt, with its interval."""
    comparison = Comparison.load(out / "samples" / "comparison")
    prompts = [prompt for prompt in comparison.prompts for _ in comparison.seeds]
    scores = [
        judge(comparison.images[column].flatten(0, 1), prompts).reshape(len(comparison.prompts), -1).double().mean(1)
        for column in ("before", "after")
    ]
    return paired_interval(*scores).as_dict()


def digest(body: dict[str, Any]) -> str:
    """Of a request."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def table(results: Sequence[dict[str, Any]], note: str) -> str:
    """The results as Markdown."""
    lines = [
        "| seed | hidden score, before | after | change | questions | asked twice | replayed without the server |",
        "|---|---|---|---|---|---|---|",
    ]
    for seed, found in enumerate(results):
        shown = (found["judge"]["before"], found["judge"]["after"], found["change"])
        before, after, change = ("{mean:.2f} [{low:.2f}, {high:.2f}]".format(**interval) for interval in shown)
        bits = "the same bits" if found["same_bits"] else "other bits"
        lines.append(f"| {seed} | {before} | {after} | {change} | {found['asked']:,} | {found['twice']} | {bits} |")
    return "\n".join(lines) + f"\n\n{note}\n"


def main() -> None:
    """Train and measure what has not been, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--port", type=int, default=8799)
    parser.add_argument("--work", type=Path, default=Path("runs/judge"))
    words = parser.parse_args()
    words.work.mkdir(parents=True, exist_ok=True)
    hidden = Hidden()
    results = [
        run(hidden, seed, words.steps, words.port, words.work)
        | {"change": paired_change(hidden.judge, words.work / f"seed-{seed}")}
        for seed in range(words.seeds)
    ]
    about = environment(torch.device("cpu"))
    note = (
        f"{words.steps} updates of {BATCH} samples by smoothing along {DIRECTIONS} directions, `pull=2.6`; 96 held-out "
        "prompts, two noises each. "
        f"{about['device']}, python {about['python']}, torch {about['torch']}, fp32."
    )
    text = table(results, note)
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
