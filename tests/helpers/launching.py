"""Runs of the program in several processes on this machine's CPU, and what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from forked import dipp, ranks, wait_together

FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
"""What `accelerate launch` sets for a configuration file with FSDP 2."""


def launch(
    count: int, words: list[str], config: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `dipp` in several processes by a launcher, one thread each.

    Args:
        count: of processes.
        words: after the program's name.
        config: one of the configuration files of `docs/operations/accelerate/`, for accelerate's launcher; torchrun's
            where None.
        environment: further variables.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    root = Path(__file__).parents[2]
    if config is not None:
        given = ["--num_processes", str(count), "--mixed_precision", "no", "--main_process_port", "0"]
        file = root / "docs" / "operations" / "accelerate" / config
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file), *given]
    paths = os.pathsep.join(str(root / text) for text in (".", "plugins", "cli"))
    return subprocess.run(
        [*launcher, "-m", "dipp_cli", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def together(count: int, words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """The same by no launcher: the processes get the variables that one would set."""
    programs = [dipp(words, **{**environment, **rank}) for rank in ranks(count)]
    code = wait_together(programs)
    outputs = ("".join(getattr(program, name) for program in programs) for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(words, code, *outputs)


def trained(folder: Path, count: int, words: list[str], config: str | None = None, **environment: str) -> Path:
    """A finished run, by accelerate's launcher where one of its configuration files is named."""
    words = [*words, "--out", str(folder)]
    done = launch(count, words, config, **environment) if config else together(count, words, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The exported generator and the assistant beside it."""
    found: dict[str, torch.Tensor] = {}
    for part in ("transformer", "assistant"):
        for path in (folder / "final" / part).glob("*.safetensors"):
            # An adapter's file has an empty tensor for each of its layers, which names it.
            found |= {f"{part}/{name}": tensor for name, tensor in load_file(path).items() if tensor.numel()}
    return found


def farthest(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    """The largest difference of two sets of weights."""
    assert a.keys() == b.keys() and a
    return max((a[name] - b[name]).abs().max().item() for name in a)
