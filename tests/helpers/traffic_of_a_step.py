"""Bytes that one step sends between processes: run under torchrun with a list of settings, as JSON."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from dipp_toolkit.config import make_config
from dipp_toolkit.distributed import Processes
from dipp_toolkit.training.run import TrainingLoop
from dipp_toolkit.training.run_state.run_folder import RunFolder
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve

SMALL = 64
"""Numbers for the log, such as norms, are no larger; they are not counted."""


def watch(sent: Counter[str], kind: str, names: tuple[str, ...], place: int, times: float) -> None:
    """Count the bytes of a collective."""
    name = next(item for item in names if hasattr(torch.distributed, item))
    real = getattr(torch.distributed, name)

    def counting(*arguments: Any, **options: Any) -> Any:
        tensor = arguments[place] if len(arguments) > place else options["input"]
        if tensor.numel() > SMALL:
            sent[kind] += times * tensor.nbytes
        return real(*arguments, **options)

    setattr(torch.distributed, name, counting)


def main() -> None:
    processes = Processes.launched(torch.device("cpu"))
    share = (processes.count - 1) / processes.count
    sent: Counter[str] = Counter()
    # torch has given the last two new names.
    watch(sent, "gradients averaged", ("all_reduce",), 0, 2 * share)
    watch(sent, "weights gathered", ("all_gather_single", "all_gather_into_tensor"), 0, share)
    watch(sent, "gradients reduced", ("reduce_scatter_single", "reduce_scatter_tensor"), 1, share)
    found = []
    for settings in json.loads(sys.argv[1]):
        config = resolve(make_config(settings))
        loop = TrainingLoop(config, assemble(config, processes), RunFolder(Path(settings["out"])))
        sent.clear()
        loop.one_step()
        found.append(dict(sent))
    if processes.main:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
