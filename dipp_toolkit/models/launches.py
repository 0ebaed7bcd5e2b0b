"""How many kernels passes start, eager and compiled: what a GPU waits for where passes are short."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

CALLS = re.compile(
    r"^\s+(?:[\w, ]+ = )?(extern_kernels\.\w+|torch\.ops\.[\w.]+|(?:cpp|triton)_\w+(?:\.run)?)\(", re.MULTILINE
)
"""In the Python that inductor writes around its kernels: a call of a generated kernel, of a library, or of aten."""

NO_KERNEL = re.compile(r"torch\.ops\.(inductor\._reinterpret|aten\.(view|as_strided|detach|set_)\b)")

VIEWS = {
    "view", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "_unsafe_view", "slice", "select", "split",
    "detach", "alias", "as_strided", "unbind", "split_with_sizes", "_reshape_alias", "chunk", "empty", "empty_like",
    "empty_strided", "lift_fresh", "view_as_complex", "view_as_real", "_conj",
}  # fmt: skip
"""Calls of aten that start no kernel."""


@dataclass
class Launches:
    """Kernels started so far.

    Attributes:
        eager: by calls of aten outside compiled code.
        compiled: by compiled code: its own kernels, and those of libraries that it calls.
    """

    eager: int = 0
    compiled: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.eager + self.compiled


class _Counting(TorchDispatchMode):
    """Counts aten's calls; compiled code counts its own meanwhile."""

    def __init__(self, launches: Launches):
        super().__init__()
        self.launches = launches

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compilation goes on under it."""
        return True

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _COUNTERS.inside and function._overloadpacket.__name__ not in VIEWS:
            self.launches.eager += 1
        return function(*args, **(kwargs or {}))


@dataclass
class _Counters:
    """Who counts at the moment, and whether compiled code is running."""

    launches: Launches | None = None
    inside: bool = False


_COUNTERS = _Counters()


@contextmanager
def counted_launches() -> Iterator[Launches]:
    """Counts the kernels that are started inside, backward passes included.

    Networks whose blocks were compiled with `backend=counting_inductor` count; their first passes, which compile, are
    best made before. Other compiled code is not seen inside.
    """
    launches, before = Launches(), _COUNTERS.launches
    _COUNTERS.launches = launches
    try:
        with _Counting(launches):
            yield launches
    finally:
        _COUNTERS.launches = before


def counting_inductor(graph: Any, inputs: Any, **options: Any) -> Any:
    """torch's inductor, whose code counts its kernels whenever it runs inside `counted_launches`: a backend for
    `compile_blocks`."""
    import torch._functorch.config as functorch
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner

    def inner(*args: Any, **kwargs: Any) -> Any:
        compiled: Any = compile_fx_inner(*args, **kwargs)
        kernels = launches_in(compiled.source_code)

        def run(values: Any) -> Any:
            if _COUNTERS.launches is not None:
                _COUNTERS.launches.compiled += kernels
            before, _COUNTERS.inside = _COUNTERS.inside, True
            try:
                return compiled(values)
            finally:
                _COUNTERS.inside = before

        run._boxed_call = True  # type: ignore[attr-defined]  # it empties the list of its inputs
        return run

    with functorch.patch(enable_autograd_cache=False):  # what it keeps would come back without the count
        return compile_fx(graph, inputs, inner_compile=inner, **options)


def launches_in(code: str) -> int:
    """Kernels that a pass through the Python code which inductor wrote starts."""
    return sum(not NO_KERNEL.match(call) for call in CALLS.findall(code))
