"""How long one waits: for the help, for the list of plugins, and for the first finished step of a training.

    python benchmarks/start_up/run.py [--runs 5] [--device cuda]

Each command runs a few times in a process of its own, files being in the system's cache from a run before that does not
count. The training is `dipp train` on the emoji world with its recommended settings, watched until the first row of
`metrics.jsonl` is whole, and then killed; its time holds everything before that: imports, weights, images of the
generator before the training. Writes results.json and results.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._shared.measuring import choose, print_results, ran_on, write_results

HERE = Path(__file__).parent
LIMITS = {"help": 0.5, "plugins": 1.0, "first step": 15.0}
NAMES = {"help": "`dipp --help`", "plugins": "`dipp plugins`", "first step": "`dipp train`, first step done"}
DIPP = [sys.executable, "-m", "dipp_cli"]
LONGEST = 300.0


def command() -> list[str]:
    """The installed program, or the module where it is not installed."""
    script = Path(sys.executable).with_name("dipp")
    return [str(script)] if script.is_file() else DIPP


def run(words: list[str], environment: dict[str, str]) -> None:
    """Run a command to its end."""
    subprocess.run([*command(), *words], check=True, stdout=subprocess.DEVNULL, env=environment)


def first_step(device: str, environment: dict[str, str]) -> None:
    """Start a training and wait for its first row."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        words = ["train", "--out", str(folder), "--device", device]
        with subprocess.Popen(
            [*command(), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        ) as training:
            started, metrics = time.perf_counter(), folder / "metrics.jsonl"
            while not (metrics.is_file() and b"\n" in metrics.read_bytes()):
                if training.poll() is not None or time.perf_counter() - started > LONGEST:
                    training.kill()
                    raise SystemExit(f"`dipp {' '.join(words)}` finished no step; run it to see why.")
                time.sleep(0.005)
            training.kill()


def timed(work: Callable[[], None]) -> dict[str, float]:
    """Seconds on the wall, and of the processor, that a command took."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": seconds, "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def page(results: dict[str, Any], about: str) -> str:
    """The results as Markdown."""
    lines = [
        "# How long one waits",
        "",
        f"Measured on {about}",
        "Files are in the system's cache; the first run, which puts them there, does not count.",
        "",
        "| | median | worst | processor time | limit | |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        wall, processor = ([row[key] for row in rows["runs"]] for key in ("wall", "processor"))
        verdict = "met" if max(wall) < LIMITS[name] else "met by the median" if rows["met"] else "not met"
        lines.append(
            f"| {NAMES[name]} | {statistics.median(wall):.2f} s | {max(wall):.2f} s | "
            f"{statistics.median(processor):.2f} s | {LIMITS[name]} s | {verdict} |"
        )
    first = results["first step"]["warming"]["wall"]
    lines += ["", f"The training's first run of all, which encodes the prompts for later ones, took {first:.2f} s."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every command and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of a CPU's operators")
    words = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"DIPP_CACHE": cache, "OMP_NUM_THREADS": str(words.threads)}
        kinds: dict[str, Callable[[], None]] = {
            "help": lambda: run(["--help"], environment),
            "plugins": lambda: run(["plugins"], environment),
            "first step": lambda: first_step(words.device, environment),
        }
        for name, work in kinds.items():
            warming, runs = timed(work), [timed(work) for _ in range(words.runs)]
            met = statistics.median(row["wall"] for row in runs) < LIMITS[name]
            results[name] = {"runs": runs, "warming": warming, "met": met}
    about = ran_on(choose(words.device, words.threads))
    write_results(HERE, {"ran_on": about, "limits": LIMITS, "commands": results}, page(results, about))
    print_results(HERE)


if __name__ == "__main__":
    main()
