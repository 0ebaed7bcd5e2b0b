"""A step of the emoji world, eager and with compiled blocks: processor seconds, kernels started, and compilations.

    python benchmarks/compiled_step/run.py

Both run in one process, in turns of one step, from the same seed, on one thread. `results.json` holds every step's
processor seconds, `results.md` the table. Compilations are made cold, in an empty folder, and once more by a second
process that finds them there. Kernels are calls of aten that are no views, and in compiled code its own kernels and the
library calls it makes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from benchmarks.full_size_step.case import use_plugins_of_the_checkout

HERE = Path(__file__).parent
SETTLED = 3
"""Steps after which nothing may be compiled any more."""


def loop_of(precision: Any, compile_setting: Any, batch: int, work: Path) -> Any:
    """A training loop of the emoji world."""
    from dipp_toolkit.config import TrainConfig
    from dipp_toolkit.training.loop import TrainingLoop
    from dipp_toolkit.training.run_state.run_folder import RunFolder
    from dipp_toolkit.training.setup.assembly import assemble
    from dipp_toolkit.training.setup.resolve import resolve

    config = resolve(
        TrainConfig(
            generator="emoji-onestep", precision=precision, compile=compile_setting, batch_size=batch, device="cpu",
            prompt_cache=work / "prompts", steps=1000, assistant_warmup=0, eval_count=2, seed=0,
        )
    )  # fmt: skip
    return TrainingLoop(config, assemble(config), RunFolder(work / f"{compile_setting}-{precision}"))


def processor_seconds() -> float:
    """Of this process and of the compilers that it has started."""
    return sum(os.times()[:4])


def timed(loop: Any) -> tuple[float, dict[str, float]]:
    """Processor seconds of a step, and its metrics."""
    started = processor_seconds()
    row = loop.one_step()
    return processor_seconds() - started, row


def measured(precision: str, steps: int, batch: int, work: Path) -> dict[str, Any]:
    """Steps of one precision, eager and compiled in turns."""
    from dipp_toolkit.models import compilation
    from dipp_toolkit.models.launches import counted_launches

    eager, compiled = loop_of(precision, "off", batch, work), loop_of(precision, "on", batch, work)
    seconds: dict[str, list[float]] = {"eager": [], "compiled": []}
    first, differences, graphs = 0.0, [], []
    for number in range(SETTLED + steps):
        spent, plain = timed(eager)
        again, row = timed(compiled)
        graphs.append(compilation.report().graphs)
        first += again - spent if number < SETTLED else 0.0
        differences.append(abs(row["assistant_loss"] - plain["assistant_loss"]) / abs(plain["assistant_loss"]))
        if number >= SETTLED:
            seconds["eager"].append(spent)
            seconds["compiled"].append(again)
    with counted_launches() as launches:
        eager.one_step()
    report = compilation.report()
    return {
        "precision": precision, "batch": batch, "seconds": seconds, "compile_seconds": first, "wall": report.seconds,
        "graphs": graphs, "eager_blocks": report.eager, "eager_kernels": launches.total, "differences": differences,
    }  # fmt: skip


def kernels(precision: str, batch: int, work: Path) -> int:
    """Kernels that a compiled step starts, counted by code that counts itself."""
    from dipp_toolkit.models.compilation import compile_blocks
    from dipp_toolkit.models.launches import counted_launches, counting_inductor

    counting = partial(compile_blocks, backend=counting_inductor)
    places = ("optim", "setup.assembly")
    with ExitStack() as patched:
        for place in places:
            patched.enter_context(patch(f"dipp_toolkit.training.{place}.compile_blocks", counting))
        loop = loop_of(precision, "on", batch, work)
    for _ in range(2):
        loop.one_step()
    with counted_launches() as launches:
        loop.one_step()
    return launches.total


def main() -> None:
    """Measure both precisions, each in processes of its own: cold, then with what the first one kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--one", nargs=2, metavar=("PRECISION", "WHAT"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    use_plugins_of_the_checkout()
    torch.set_num_threads(1)
    if words.one:
        precision, what = words.one
        work = Path(os.environ["COMPILED_STEP_WORK"])
        if what == "kernels":
            print(json.dumps(kernels(precision, words.batch, work)))
        else:
            steps = words.steps if what == "cold" else 1
            print(json.dumps(measured(precision, steps, words.batch, work)))
        return
    results = []
    for precision in words.precisions.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            setting = {
                "TORCHINDUCTOR_CACHE_DIR": f"{scratch}/compiled",
                "COMPILED_STEP_WORK": scratch,
                "TORCHINDUCTOR_COMPILE_THREADS": "1",
            }  # its own compilers, whose time is counted

            def of(what: str, precision: str = precision, setting: dict[str, str] = setting) -> Any:
                command = [sys.executable, __file__, "--one", precision, what, "--steps", str(words.steps)]
                done = subprocess.run(
                    [*command, "--batch", str(words.batch)], check=True, stdout=subprocess.PIPE,
                    env={**os.environ, **setting},
                )  # fmt: skip
                return json.loads(done.stdout.splitlines()[-1])

            cold = of("cold")
            again = of("again")
            results.append({**cold, "cached_seconds": again["compile_seconds"], "kernels": of("kernels")})
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (HERE / "results.md").write_text(page(results), encoding="utf-8")
    print(page(results))


def page(results: list[dict[str, Any]]) -> str:
    """The table."""
    head = (
        "| precision | eager, s a step | compiled | compiled / eager | compiling, cold | kept from before | "
        "kernels a step, eager | compiled | compiled after step 3 |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
    )
    rows = ""
    for result in results:
        plain, fast = (statistics.median(result["seconds"][name]) for name in ("eager", "compiled"))
        pairs = zip(result["seconds"]["compiled"], result["seconds"]["eager"], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        late = result["graphs"][-1] - result["graphs"][SETTLED - 1]
        rows += (
            f"| {result['precision']} | {plain:.3f} | {fast:.3f} | {ratio:.2f} | {result['compile_seconds']:.0f} s | "
            f"{result['cached_seconds']:.0f} s | {result['eager_kernels']} | {result['kernels']} | {late} |\n"
        )
    batch = results[0]["batch"]
    about = f"Processor seconds, medians; emoji world, batch {batch}, one thread of {platform.machine()}"
    return head + rows + f"\n{about}, torch {torch.__version__}.\n"


if __name__ == "__main__":
    main()
