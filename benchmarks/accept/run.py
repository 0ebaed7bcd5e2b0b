"""`dipp accept` at full size, with random weights: the published architectures without a byte of the published weights.

    python benchmarks/accept/run.py [--cases pixart-onestep,sdxl-dmd2] [--dtype bf16] [--minutes 8] [--twin]

For each case a hub cache is written with the pipelines of the generator and of its reference, from their blueprints and
with random weights, and with the single file that the generator's weights are published in, if they are. The name is
then accepted by its normal path, offline. The rewards are those of `--reward`; HPSv2's network with random weights
unless said. What is random has no golden numbers and may not rise: those rows are skipped or not seen. The plan does
not count a reward of a file, so that memory is not compared with it either. With `--twin` the case is a tiny pipeline
of the same class, for a machine without a GPU; its configurations are then not the published ones, which the check
`load` says.

A case takes as much disk as its weights: PixArt-alpha 11 GB in bf16 (T5 is most of it), Stable Diffusion XL 14 GB.
The rows go to `--out`, one file a case. It has been run with `--twin` alone: at full size, on a GPU, not yet.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.full_size_step.case import use_plugins_of_the_checkout
from benchmarks.published_world.hub_cache import HubCache

REWARD = f"{Path(__file__).parents[1] / 'full_size_step' / 'reward.py'}:RandomHPSv2"
CASES = ("pixart-onestep", "sdxl-dmd2")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def main(arguments: Sequence[str] | None = None) -> int:
    """Accept every case; 1 where a check failed in one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), metavar="NAME,...", help="published generators")
    parser.add_argument("--dtype", default="bf16", choices=DTYPES, help="of the frozen weights")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", default="8", help="of a case")
    parser.add_argument("--reward", default=REWARD, help="as dipp accept takes it")
    parser.add_argument("--twin", action="store_true", help="tiny pipelines of the same classes")
    parser.add_argument("--out", type=Path, default=Path("accepted"), metavar="FOLDER")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as of dipp accept")
    options = parser.parse_args(arguments)
    use_plugins_of_the_checkout()
    codes = [run_case(name, options) for name in options.cases.split(",")]
    return max(codes, default=2)


def run_case(name: str, options: Any) -> int:
    """Write the case's repositories and accept it."""
    from dipp_cli.app import main as dipp

    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="accept-") as home:
        cache = HubCache(Path(home))
        write_case(cache, name, DTYPES[options.dtype], options.twin)
        settings = [f"frozen_precision={options.dtype}", *options.set]
        if not options.twin:
            settings += ["gradient_checkpointing=true", "recompute_generator=true"]
        if options.reward == REWARD and not options.twin:
            device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
            settings.append(f"reward.{REWARD}.device={device}")
        words = [word for setting in settings for word in ("--set", setting)]
        with cache.used():
            return dipp(
                ["accept", name, "--reward", options.reward, "--device", options.device, "--minutes", options.minutes,
                    "--out", str(options.out / f"{name}.json"), *words]
            )  # fmt: skip


def write_case(cache: HubCache, name: str, dtype: torch.dtype, twin: bool) -> None:
    """The repositories of a published generator and of its reference, with random weights.

    Args:
        cache: where to.
        name: of the generator.
        dtype: that weights are stored in.
        twin: whether they are tiny.
    """
    from benchmarks.published_world.layouts import model_of
    from dipp_toolkit.models.published import PublishedGenerator

    model = model_of("generator", name)
    assert isinstance(model, PublishedGenerator)
    reference = model_of("reference", model.reference)
    for number, pipeline in enumerate({each.pipeline: each for each in (reference, model)}.values()):
        write_pipeline(cache, pipeline, number, dtype, twin)
    if model.weights is not None:
        write_single_file(cache, model, twin, dtype)


def write_pipeline(cache: HubCache, model: Any, seed: int, dtype: torch.dtype, twin: bool) -> None:
    """One repository. Tokenizers are a twin's: no prompt of random text encoders has a meaning."""
    import json
    import shutil

    from benchmarks.published_world.layouts import _write_pipeline

    folder = cache.snapshot(model.pipeline)
    _write_pipeline(folder, model, seed)
    if twin:
        return
    index = json.loads((model.configs / "model_index.json").read_text(encoding="utf-8"))
    names = [
        component
        for component, entry in index.items()
        if isinstance(entry, list) and entry[0] and is_network(model, component)
    ]
    with tempfile.TemporaryDirectory(dir=cache.home) as scratch:
        whole = model.blueprint().write(Path(scratch) / "whole", names, seed=seed, dtype=dtype)
        for name in names:
            shutil.rmtree(folder / name)
            shutil.move(whole / name, folder / name)


def is_network(model: Any, component: str) -> bool:
    """Whether a component has weights."""
    return (model.configs / component / "config.json").is_file()


def write_single_file(cache: HubCache, model: Any, twin: bool, dtype: torch.dtype) -> None:
    """The file that a generator's network is published in: the reference's weights, a little larger."""
    from benchmarks.published_world.weight_layouts import state_of, write_pickle, write_single

    base = cache.snapshot(model.pipeline)
    network = next(base / name for name in ("unet", "transformer") if (base / name).is_dir())
    state = {name: (tensor * 1.01).to(dtype) for name, tensor in state_of(network).items()}
    repository, _, inside = model.weights.partition(":")
    path = cache.snapshot(repository) / inside
    path.parent.mkdir(parents=True, exist_ok=True)
    (write_pickle if path.suffix == ".bin" else write_single)(state, path)


if __name__ == "__main__":
    sys.exit(main())
