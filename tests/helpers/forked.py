"""Programs in processes of their own, forked from a server that has imported what is heavy.

A fresh interpreter spends most of a short program's time on importing torch, diffusers and transformers. The server
imports them once a session, nothing of this toolkit, and never computes. What an interpreter's start itself is about
(the time of `dipp --help`, a launcher, a killed import) takes `subprocess`.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path

HEAVY = (
    "accelerate", "diffusers.models.autoencoders.autoencoder_tiny",
    "diffusers.models.transformers.pixart_transformer_2d",
    "diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha", "diffusers.schedulers.scheduling_dpmsolver_multistep",
    "jinja2", "peft", "PIL.Image", "pydantic", "rich.console", "safetensors.torch", "scipy.stats", "torch",
    "torch.distributed", "transformers.models.t5.modeling_t5", "typer",
)  # fmt: skip
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(list(HEAVY))


class Program:
    """A running program.

    Args:
        run: what the process calls; a function of a module that it can import, or a method of `str` and the like.
        arguments: of it.
        environment: all of the process's variables.
    """

    def __init__(self, run: object, arguments: Sequence[object], environment: Mapping[str, str]) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="dipp-test-program-")
        given = (run, tuple(arguments), dict(environment), str(Path.cwd()), self.folder.name)
        self.process = CONTEXT.Process(target=_begin, args=given)
        self.process.start()

    @property
    def returncode(self) -> int | None:
        """None while it runs, negative where a signal ended it."""
        return self.process.exitcode

    def wait(self, timeout: float = 300) -> int:
        """Its return code, once it has ended.

        Raises:
            TimeoutError: it has not; it is killed.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"killed after {timeout} s: {self.stderr[-3000:]}")
        return self.process.exitcode

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.join()

    @property
    def stdout(self) -> str:
        """What it has printed."""
        return (Path(self.folder.name) / "stdout").read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """What it has said."""
        return (Path(self.folder.name) / "stderr").read_text(encoding="utf-8")


def _begin(
    run: object, arguments: tuple[object, ...], environment: dict[str, str], working_folder: str, streams: str
) -> None:
    gc.freeze()  # what the server has imported is no garbage, and going through it would copy its pages
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(working_folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(streams) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))

    import torch

    torch.set_num_threads(1)
    run(*arguments)  # type: ignore[operator]


def python(code: str, *arguments: object, **environment: str) -> Program:
    """`python -c code arguments`, begun."""
    return Program(_code, [code, [str(argument) for argument in arguments]], {**os.environ, **environment})


def _code(code: str, arguments: list[str]) -> None:
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


def dipp(words: Sequence[str], **environment: str) -> Program:
    """`dipp words`, begun."""
    return Program(_dipp, [list(words)], {**os.environ, **environment})


def _dipp(words: list[str]) -> None:
    sys.argv = ["dipp", *words]
    runpy.run_module("dipp_cli", run_name="__main__", alter_sys=True)


def script(path: Path, *arguments: str, **environment: str) -> Program:
    """`python path arguments`, begun."""
    return Program(_script, [str(path), list(arguments)], {**os.environ, **environment})


def _script(path: str, arguments: list[str]) -> None:
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")


def ranks(count: int, **environment: str) -> list[dict[str, str]]:
    """The environment of each process that a launcher would start together on this machine."""
    if count == 1:
        return [environment]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [{**environment, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def wait_together(programs: Sequence[Program], timeout: float = 300) -> int:
    """The return code of programs that work together: 0, or that of the first to fail, after which all are ended."""
    running, until = list(programs), time.monotonic() + timeout
    while running:
        ended = wait([program.process.sentinel for program in running], max(0.0, until - time.monotonic()))
        failed = [program for program in running if program.returncode not in (None, 0)]
        if failed or not ended:
            for program in running:
                program.kill()
            return failed[0].wait() if failed else -1
        running = [program for program in running if program.returncode is None]
    return 0
