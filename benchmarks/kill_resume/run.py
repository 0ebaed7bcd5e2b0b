"""Kill a training in every phase, go on each time, and compare with a run that nobody killed: bit for bit.

    python benchmarks/kill_resume/run.py [--kills 60] [--steps 160] [--seed 0]

A training of a tiny pipeline, with a reward and a judge of a file, looks, diagnoses and samples every few steps and a
checkpoint every other one, is started with `--resume auto` and ended by SIGKILL, again and again: while it loads, makes
its first pictures, steps, looks, diagnoses, draws samples, writes checkpoints, exports, compares, and writes summary
and report. killed_in_phase.py, which is what is started, chooses the moments by count, so that every file that is
opened, renamed or removed and every line that is appended may have its turn; which of a phase's moments do, is drawn.
After the last kill the training runs to its end. Compared are the exported weights, every tensor of the last checkpoint
(weights, optimisers, averages, random states, statistics), `metrics.jsonl` but for what the machine measures,
`monitors.jsonl`, `diagnostics.jsonl`, the summary but for its time, the pictures, and that the report has as many of
them. Exits with 1 where anything differs. Writes results.json and results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from safetensors.torch import load_file

from benchmarks._shared.measuring import ran_on, write_results
from benchmarks.kill_resume.killed_in_phase import PHASES
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.training.loop import MEASURED
from dipp_toolkit.utils.jsonl import whole_rows

HERE = Path(__file__).parent
PROMPTS = ("a fox on blue", "a red cat", "an owl on pink", "a cake on white", "a dog by the sea", "a green tree")
REWARDS = """
def blue(images, prompts):
    return images[:, 2].mean((1, 2))

def red(images, prompts):
    return images[:, 0].mean((1, 2))
"""
SETTINGS = (
    "--batch-size", "2", "--set", "checkpoint_every=2", "--set", "sample_every=4", "--set", "monitor_every=3",
    "--set", "diagnose_every=3", "--set", "monitor_count=4", "--set", "eval_count=4", "--set", "reference_steps=2",
    "--set", "assistant_warmup=2", "--set", "seed=3", "--device", "cpu",
)  # fmt: skip
STARTING = ("load", "monitors' bases", "start comparison")
ENDING = ("export", "comparison", "summary", "report")
LONGEST = 600.0


@dataclass(frozen=True)
class Kill:
    """A kill that took place.

    Attributes:
        phase: what was killed.
        moment: what it was about to do or had just done.
        rows: rows of metrics there were.
    """

    phase: str
    moment: str
    rows: int


@dataclass(frozen=True)
class Training:
    """A training that can be started again and again.

    Attributes:
        work: folder of what it needs.
        words: of its command line, but for the folder.
    """

    work: Path
    words: Sequence[str]

    def run(self, folder: Path, phase: str = "none", moment: int = 0) -> tuple[bool, dict[str, Any]]:
        """Start it or go on; it ends by itself at a moment, or at its end.

        Returns:
            Whether it was killed, and its notes.

        Raises:
            SystemExit: it failed.
        """
        notes = self.work / "notes.json"
        script = Path(__file__).with_name("killed_in_phase.py")
        command = [sys.executable, str(script), phase, str(moment), str(notes), str(folder), "train", "--quiet"]
        command += ["--out", str(folder), "--resume", "auto", *self.words]
        done = subprocess.run(command, capture_output=True, timeout=LONGEST, cwd=self.work, check=False)
        if done.returncode not in (0, -signal.SIGKILL):
            raise SystemExit(f"The training failed:\n{done.stderr.decode()[-2000:]}")
        return done.returncode != 0, json.loads(notes.read_text(encoding="utf-8"))


def training(work: Path, steps: int) -> Training:
    """A training of a tiny pipeline, with everything that it needs written to a folder."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "twin").is_dir():
        write_twin("StableDiffusionPipeline", work / "twin")
    (work / "prompts.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    (work / "rewards.py").write_text(REWARDS, encoding="utf-8")
    named = ("--generator", "./twin", "--reference", "./twin", "--prompts", "prompts.txt")
    rewards = ("--reward", "./rewards.py:blue", "--judge", "./rewards.py:red")
    return Training(work, (*named, *rewards, *SETTINGS, "--steps", str(steps)))


def in_turn(kills: int) -> Iterator[str]:
    """The phases to kill in, in the order in which a run comes to them: each in turn as often as any other."""
    each = list(islice(cycle(PHASES), kills))
    middle = [name for name in PHASES if name not in (*STARTING[1:], *ENDING)]
    counts = Counter(each)
    # Loading is killed at the beginning, on the way and at the end.
    early = [name for name in STARTING for _ in range(counts[name] if name != "load" else -(-counts[name] // 3))]
    counts["load"] -= early.count("load")
    yield from early
    late = ["load"] * (counts["load"] // 2)
    counts["load"] -= len(late)
    for number in range(max(counts.values(), default=0)):
        yield from (name for name in middle if counts[name] > number)
    for name in ENDING:
        yield from [name] * counts[name]
    yield from late


def moments_of(phase: str, counts: Mapping[str, int], kills: int, dice: random.Random) -> list[int]:
    """Moments of a phase to kill at, spread over all of them; of what comes again and again, over the first two times.

    What comes before the first step is killed there, and not when it comes again.
    """
    most = counts["first"] if phase in STARTING else min(counts["all"], counts["first"] * 2)
    parts = [(most * k // kills, max(most * (k + 1) // kills, most * k // kills + 1)) for k in range(kills)]
    return [1 + min(dice.randrange(low, high), most - 1) for low, high in parts]


def lines_of(folder: Path) -> int:
    """Rows of metrics up to now."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Lines of a file of JSON, without what the machine measures."""
    rows = whole_rows(path)
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def differences(a: Path, b: Path) -> list[str]:
    """Everything in which two finished runs differ; none where they are the same bits."""
    different = []
    for name in ("metrics.jsonl", "monitors.jsonl", "diagnostics.jsonl"):
        if rows_of(a / name) != rows_of(b / name):
            different.append(name)
    tensors = [*sorted((a / "final").rglob("*.safetensors")), newest(a) / "state.safetensors"]
    for path in tensors:
        other = newest(b) / path.name if path.parent == newest(a) else b / path.relative_to(a)
        first, second = load_file(path), load_file(other)
        if first.keys() != second.keys():
            different.append(f"names in {path.relative_to(a)}")
            continue
        different += [f"{path.name}: {key}" for key in first if not same(first[key], second[key])]
    for path in sorted([*(a / "samples").rglob("*.png"), a / "before_after.png", a / "final" / "README.md"]):
        other = b / path.relative_to(a)
        if not other.is_file() or other.read_bytes() != path.read_bytes():
            different.append(str(path.relative_to(a)))
    if summary_of(a) != summary_of(b):
        different.append("summary.json")
    if pictures_in_report(a) != pictures_in_report(b):
        different.append("report.html")
    return different + [f"left over: {path}" for path in b.rglob(".*") if path.suffix in (".partial", ".older")]


def summary_of(folder: Path) -> dict[str, Any]:
    """The numbers at the end, without the time they took and how a precision came to be chosen."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {name: value for name, value in summary.items() if name not in ("seconds", "environment")}


def pictures_in_report(folder: Path) -> tuple[int, int]:
    """How many pictures and plots a whole report has; of none or of half a one, none."""
    page = folder / "report.html"
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    return (text.count("<img"), text.count("<svg")) if text.rstrip().endswith("</html>") else (0, 0)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have the same bits."""
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def newest(folder: Path) -> Path:
    """The last checkpoint of a run."""
    return max((folder / "checkpoints").glob("step-*"))


def experiment(work: Path, kills: int, steps: int, seed: int) -> tuple[list[Kill], dict[str, Any], list[str]]:
    """A run in one piece, a run in many, and in what they differ."""
    dice, whole, parts = random.Random(seed), work / "whole", work / "parts"
    task = training(work, steps)
    _, counts = task.run(whole)
    order = list(in_turn(kills))
    moments = {name: moments_of(name, counts[name], number, dice) for name, number in Counter(order).items()}
    done: list[Kill] = []
    for phase in order:
        killed, notes = task.run(parts, phase, moments[phase].pop(0))
        if not killed:
            raise SystemExit(f"The run was over after {len(done)} kills, before one in {phase}; give it more --steps.")
        done.append(Kill(phase, notes["moment"].replace(f"{parts}/", ""), lines_of(parts)))
        print(f"kill {len(done)} of {kills}: {phase}: {done[-1].moment}", file=sys.stderr, flush=True)
    task.run(parts)
    return done, counts, differences(whole, parts)


def page(done: Sequence[Kill], counts: Mapping[str, Any], different: Sequence[str], steps: int, about: str) -> str:
    """The result as Markdown."""
    compared = (
        "exported weights, last checkpoint, metrics, monitors, diagnoses, summary and pictures, and a whole report"
    )
    verdict = f"**The same bits**: {compared}." if not different else f"**Different**: {', '.join(different[:8])}."
    rows = []
    for phase in PHASES:
        moments = Counter(kill.moment for kill in done if kill.phase == phase)
        named = "; ".join(f"{name} ({count} times)" if count > 1 else name for name, count in moments.items())
        rows.append(f"| {phase} | {counts[phase]['all']} | {moments.total()} | {named} |")
    return "\n".join(
        [
            "# Killed and resumed", "", f"Measured on {about}", "",
            f"A training of {steps} steps was killed {len(done)} times with SIGKILL, in every phase; each time "
            "`--resume auto` went on. Moments are those at which a phase touches the file system, appends a line, "
            "begins or ends.",
            "", "| phase | moments in the whole run | kills | before or at |", "|---|---|---|---|", *rows, "",
            f"Against the same training in one piece: {verdict}", "",
        ]
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for both runs; one that is removed again where not named")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as scratch:
        work = (given.work or Path(scratch)).resolve()
        done, counts, different = experiment(work, given.kills, given.steps, given.seed)
    about = ran_on(torch.device("cpu"))
    used = getrusage(RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime
    print(f"{seconds:.0f} s of processor time", file=sys.stderr)
    results = {
        "steps": given.steps, "kills": [vars(kill) for kill in done], "moments": counts, "different": different,
        "processor seconds": round(seconds), "ran on": about,
    }  # fmt: skip
    write_results(HERE, results, page(done, counts, different, given.steps, about))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
