"""DI++ steps at full size: PixArt-alpha and Stable Diffusion 1.5 at 512x512 with HPSv2's ViT-H/14, all weights random.

    python benchmarks/full_size_step/run.py [--pipelines pixart-alpha,sd15] [--mode lora|full] [--steps 3]

Each pipeline is built from its published configuration, written as a pipeline folder, and trained by the toolkit's own
engine in a process of its own, whose resident memory is watched. Results go to results.json and results.md beside this
file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
GIB = 2**30
TOKENS = {"pixart-alpha": (120, 4096), "sd15": (77, 768)}
GENERATORS = {"pixart-alpha": "pixart-onestep", "sd15": "sd15-onestep"}
PROMPTS = [f"prompt {number}" for number in range(8)]
SETTINGS = {
    "batch_size": 1,
    "guidance": 4.5,
    "precision": "bf16",
    "frozen_precision": "bf16",
    "recompute_generator": True,
    "gradient_checkpointing": True,
    "decode_checkpointing": True,
    "device": "cpu",
    "eval_count": 1,
    "ema": 0.9,
}


def resident() -> int:
    """This process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watch:
    """Seconds and peak resident memory of named parts, sampled every few milliseconds."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, float]] = {}
        self.open: list[str] = []
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while True:
            now = resident()
            for name in list(self.open):
                self.parts[name]["peak"] = max(self.parts[name]["peak"], now)
            time.sleep(0.005)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.parts.setdefault(name, {"seconds": 0.0, "peak": 0.0})
        started = time.perf_counter()
        self.open.append(name)
        try:
            yield
        finally:
            self.parts[name]["peak"] = max(self.parts[name]["peak"], resident())
            self.open.remove(name)
            self.parts[name]["seconds"] += time.perf_counter() - started

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*arguments, **options)

        return watched


def write_prompts(folder: Path, cache_folder: Path, name: str) -> None:
    """Random embeddings in the prompt cache: no text encoder is needed to train."""
    import torch

    from dipp_toolkit.condition import Condition
    from dipp_toolkit.folders import family_of
    from dipp_toolkit.prompt_cache import PromptCache, encoder_folder
    from dipp_toolkit.prompt_encoder import PromptEncoder

    texts = ("", *PROMPTS)
    tensors = {"encoder_hidden_states": torch.randn(len(texts), *TOKENS[name])}
    if name == "pixart-alpha":
        tensors["encoder_attention_mask"] = torch.ones(len(texts), TOKENS[name][0], dtype=torch.int64)
    encoder = PromptEncoder(folder, family_of(folder), torch.bfloat16)
    PromptCache(encoder_folder(cache_folder, encoder)).add(Condition(texts, tensors))


def one(name: str, mode: str, steps: int, work: Path) -> dict[str, Any]:
    """Build, assemble and step one pipeline; the numbers."""
    import torch

    from dipp_toolkit.assembly import assemble, resolve
    from dipp_toolkit.blueprints import PipelineBlueprint, find_blueprint
    from dipp_toolkit.config import TrainConfig
    from dipp_toolkit.run_folder import RunFolder
    from dipp_toolkit.training import TrainingLoop, unfused_cpu_attention

    watch = Watch()
    before = resident()
    folder = work / name
    blueprint = find_blueprint(name)
    assert isinstance(blueprint, PipelineBlueprint)
    if not folder.exists():
        blueprint.write(folder, [blueprint.family.network_name, "vae"], dtype=torch.bfloat16)
    (work / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    write_prompts(folder, work / "cache", name)
    config = resolve(
        TrainConfig(
            generator=str(folder), reference=str(folder), rewards={f"{HERE / 'reward.py'}:RandomHPSv2": 1.0},
            prompts=str(work / "prompts.txt"), prompt_cache=work / "cache", mode=mode, readout=0.4, steps=steps,
            **SETTINGS,
        )
    )  # fmt: skip
    with watch.part("assemble"):
        parts = assemble(config)
    held = resident()
    engine: Any = parts.engine
    engine.assistant.update = watch.around("assistant update", engine.assistant.update)
    engine.generator.generate = watch.around("generator forward", engine.generator.generate)
    for weighted in engine.terms:
        label = "reward (decode, HPSv2, backward)" if weighted.name.startswith("reward/") else "divergence"
        object.__setattr__(weighted, "term", watch.around(label, weighted.term))
    loop = TrainingLoop(config, parts, RunFolder(work / "run"))
    each = []
    with unfused_cpu_attention(parts.device, parts.reference.latent_shape):
        for _ in range(steps):
            with watch.part("step"):
                started = time.perf_counter()
                row = loop.one_step()
            each.append(time.perf_counter() - started)
            print(
                f"{name} {mode}: step {loop.step} in {each[-1]:.1f} s, divergence {row['divergence']:.4f}", flush=True
            )
    return {
        "pipeline": name, "mode": mode, "seconds": each, "before_gib": before / GIB, "held_gib": held / GIB,
        "peak_gib": max(watch.parts["step"]["peak"], watch.parts["assemble"]["peak"]) / GIB,
        "parts": {
            part: {"seconds": value["seconds"] / (1 if part == "assemble" else steps), "peak_gib": value["peak"] / GIB}
            for part, value in watch.parts.items()
        },
        "trainable": sum(one.numel() for one in parts.generator.network.parameters() if one.requires_grad),
        "ran_on": f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }  # fmt: skip


def main() -> None:
    """Run every pipeline in a process of its own and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", default="pixart-alpha,sd15")
    parser.add_argument("--mode", default="lora", choices=["lora", "full"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument(
        "--work", type=Path, default=None, help="folder for the built pipelines; a fresh one unless said"
    )
    parser.add_argument("--plan-only", action="store_true", help="measure nothing; hold the recorded runs to the plan")
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        result = one(words.one, words.mode, words.steps, words.work)
        (words.work / f"{words.one}-{words.mode}.json").write_text(json.dumps(result, indent=2) + "\n")
        return
    if words.plan_only:
        for earlier in json.loads((HERE / "results.json").read_text()):
            record(earlier)
        return
    with tempfile.TemporaryDirectory() as scratch:
        work = words.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        for name in words.pipelines.split(","):
            command = [sys.executable, __file__, "--one", name, "--mode", words.mode, "--steps", str(words.steps)]
            subprocess.run([*command, "--work", str(work)], check=True)
            record(json.loads((work / f"{name}-{words.mode}.json").read_text()))


def predicted(name: str, mode: str) -> dict[str, float]:
    """What `dipp plan` says of the same step, in GiB: everything, and all that is not the reward's or the process's."""
    from dipp_toolkit.config import TrainConfig
    from dipp_toolkit.planning import make_plan

    config = TrainConfig(generator=GENERATORS[name], reference=name, rewards={"hps": 1.0}, mode=mode, **SETTINGS)
    plan = make_plan(config)
    networks = sum(value for part, value in plan.resident.items() if part not in ("process", "hps", "decoder"))
    return {"peak_gib": plan.peak / GIB, "networks_gib": networks / GIB, "tflop": sum(plan.flops.values()) / 1e12}


def record(result: dict[str, Any]) -> None:
    """Add a result to results.json, in place of an earlier one of the same pipeline and mode, and write results.md."""
    path = HERE / "results.json"
    known = json.loads(path.read_text()) if path.exists() else []
    key = (result["pipeline"], result["mode"])
    result["predicted"] = {mode: predicted(result["pipeline"], mode) for mode in ("lora", "full")}
    known = [earlier for earlier in known if (earlier["pipeline"], earlier["mode"]) != key] + [result]
    path.write_text(json.dumps(known, indent=2) + "\n")
    text = table(known)
    (HERE / "results.md").write_text(text)
    print(text)


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    rows = [
        "| pipeline | mode | seconds a step | peak, measured | peak, planned | three full copies, planned | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in results:
        seconds = ", ".join(f"{value:.0f}" for value in one["seconds"])
        own, full = one["predicted"][one["mode"]]["peak_gib"], one["predicted"]["full"]["peak_gib"]
        rows.append(
            f"| {one['pipeline']} | {one['mode']} | {seconds} | {one['peak_gib']:.2f} GiB | {own:.2f} GiB "
            f"({own / one['peak_gib'] - 1:+.0%}) | {full:.2f} GiB | {full / own:.1f} |"
        )
    for one in results:
        rows += [
            "",
            f"{one['pipeline']}, {one['mode']}, by part ({one['ran_on']}; held before the first step "
            f"{one['held_gib']:.2f} GiB):",
            "",
            "| part | seconds a step | resident memory at its peak |",
            "|---|---|---|",
        ]
        rows += [
            f"| {part} | {value['seconds']:.1f} | {value['peak_gib']:.2f} GiB |"
            for part, value in one["parts"].items()
            if part not in ("assemble", "step")
        ]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
