"""Kill a training at random moments, go on each time, and compare with a run that nobody killed: bit for bit.

    python benchmarks/kill_resume.py [--kills 30] [--steps 200] [--seed 0]

`dipp train` runs on the emoji world with its recommended settings but for a smaller batch, a checkpoint every other
step, and looks and diagnoses every ten. A process of its own starts it with `--resume auto`, and SIGKILL ends that
process at a moment drawn at random: while it loads, in a step, and, for every other kill, while a checkpoint is being
written. After the last kill it runs to its end. Compared are the exported weights, every tensor of the last checkpoint
(weights, optimisers, averages, random states, statistics), `metrics.jsonl` but for what the machine measures,
`monitors.jsonl`, `diagnostics.jsonl`, and the pictures. Exits with 1 where anything differs. Writes
results/kill_resume.json and .md.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measuring import ran_on, write_results
from safetensors.torch import load_file

from dipp_toolkit.json_lines import whole_rows
from dipp_toolkit.training_loop import MEASURED

EMOJI = (
    "--batch-size", "8", "--set", "checkpoint_every=2", "--set", "sample_every=20", "--set", "monitor_every=10",
    "--set", "diagnose_every=10", "--set", "monitor_count=8", "--set", "eval_count=8", "--set", "reference_steps=4",
    "--set", "assistant_warmup=2",
)  # fmt: skip
LONGEST = 600.0
POLL = 0.002


@dataclass
class Kills:
    """What was under way when the process was killed.

    Attributes:
        loading: before the first step of the process.
        stepping: after it.
        saving: while a checkpoint was being written.
        damaged: times that a resumed run said a checkpoint was damaged.
    """

    loading: int = 0
    stepping: int = 0
    saving: int = 0
    steps: list[int] = field(default_factory=list)


def start(folder: Path, words: Sequence[str]) -> subprocess.Popen[bytes]:
    """The training, as somebody would start it again and again."""
    command = [sys.executable, "-m", "dipp_cli", "train", "--quiet", "--out", str(folder), "--resume", "auto", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(folder: Path, words: Sequence[str]) -> None:
    """Run to the end.

    Raises:
        SystemExit: it failed.
    """
    training = start(folder, words)
    _, said = training.communicate(timeout=LONGEST)
    if training.returncode != 0:
        raise SystemExit(f"The training failed:\n{said.decode()[-2000:]}")


def lines_of(folder: Path) -> int:
    """Rows of metrics up to now."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def being_saved(folder: Path, since: float) -> bool:
    """Whether a checkpoint is being written at this moment; what an earlier kill left half-written does not count."""
    for one in (folder / "checkpoints").glob(".step-*.partial"):
        with suppress(FileNotFoundError):  # renamed in between
            if one.stat().st_mtime > since:
                return True
    return False


def kill_once(folder: Path, words: Sequence[str], dice: random.Random, while_saving: bool, kills: Kills) -> bool:
    """Start, wait for a moment, kill; False where the run was over before."""
    since = time.time()
    training, begun = start(folder, words), time.monotonic()
    loading = not while_saving and dice.random() < 0.3
    patience, steps, after = dice.uniform(0.5, 6.0), dice.randrange(1, 8), dice.uniform(0.0, 0.4)
    known, done, last = lines_of(folder), 0, begun
    while training.poll() is None:
        now, rows = time.monotonic(), lines_of(folder)
        if rows > known:
            done, last = done + rows - known, now
        known = rows  # it falls where a resumed run drops rows of steps that are to be done again
        enough = done >= steps and now > last + after
        if now > begun + LONGEST or (loading and now > begun + patience):
            break
        if enough and not loading and (being_saved(folder, since) or not while_saving):
            break
        time.sleep(POLL)
    saving = being_saved(folder, since)
    training.send_signal(signal.SIGKILL)
    _, said = training.communicate()
    if training.returncode != -signal.SIGKILL:
        if training.returncode != 0:
            raise SystemExit(f"The training failed:\n{said.decode()[-2000:]}")
        return False
    name = "saving" if saving else "stepping" if done else "loading"
    setattr(kills, name, getattr(kills, name) + 1)
    kills.steps.append(lines_of(folder))
    return True


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Lines of a file of JSON, without what the machine measures."""
    rows = whole_rows(path)
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def differences(a: Path, b: Path) -> list[str]:
    """Everything in which two finished runs differ; none where they are the same bits."""
    found = []
    for name in ("metrics.jsonl", "monitors.jsonl", "diagnostics.jsonl"):
        if rows_of(a / name) != rows_of(b / name):
            found.append(name)
    tensors = [*sorted((a / "final").rglob("*.safetensors")), newest(a) / "state.safetensors"]
    for one in tensors:
        other = newest(b) / one.name if one.parent == newest(a) else b / one.relative_to(a)
        first, second = load_file(one), load_file(other)
        if first.keys() != second.keys():
            found.append(f"names in {one.relative_to(a)}")
            continue
        found += [f"{one.name}: {key}" for key in first if not same(first[key], second[key])]
    for path in sorted((a / "samples").rglob("*.png")):
        other = b / path.relative_to(a)
        if not other.is_file() or other.read_bytes() != path.read_bytes():
            found.append(str(path.relative_to(a)))
    return found


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have the same bits."""
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def newest(folder: Path) -> Path:
    """The last checkpoint of a run."""
    return max((folder / "checkpoints").glob("step-*"))


def experiment(work: Path, kills: int, words: Sequence[str], seed: int) -> tuple[Kills, list[str]]:
    """A run in one piece, a run in many, and in what they differ."""
    dice, done = random.Random(seed), Kills()
    finish(work / "whole", words)
    for number in range(kills):
        if not kill_once(work / "parts", words, dice, number % 2 == 1, done):
            raise SystemExit(f"The run was over after {number} kills; give it more --steps.")
        print(f"kill {number + 1} of {kills}: after step {done.steps[-1]}", file=sys.stderr, flush=True)
    finish(work / "parts", words)
    return done, differences(work / "whole", work / "parts")


def page(done: Kills, found: list[str], steps: int, about: str) -> str:
    """The result as Markdown."""
    count = done.loading + done.stepping + done.saving
    compared = "exported weights, last checkpoint, metrics, monitors, diagnoses and pictures"
    verdict = f"**The same bits**: {compared}." if not found else f"**Different**: {', '.join(found[:8])}."
    return "\n".join(
        [
            "# Killed and resumed", "", f"Measured on {about}", "",
            f"A training of {steps} steps was killed {count} times with SIGKILL: {done.loading} times while it loaded, "
            f"{done.stepping} in its steps, {done.saving} while a checkpoint was being written; each time "
            f"`--resume auto` went on. Rows of metrics there were at each kill: "
            f"{', '.join(map(str, done.steps))}.",
            "", f"Against the same training in one piece: {verdict}", "",
        ]
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for both runs; one that is removed again where not named")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    words = [*EMOJI, "--steps", str(given.steps), "--set", "seed=3"]
    with tempfile.TemporaryDirectory() as scratch:
        done, found = experiment(given.work or Path(scratch), given.kills, words, given.seed)
    about = ran_on(torch.device("cpu"))
    results = {"steps": given.steps, **vars(done), "different": found, "ran on": about}
    write_results("kill_resume", results, page(done, found, given.steps, about))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
