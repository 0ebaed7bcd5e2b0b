"""Regional compilation: the repeated blocks of a network, one compilation for all blocks of one class and shape.

A network of 28 equal blocks is compiled as one block, which takes seconds where the whole network takes minutes, and
leaves most of the gain: it is inside blocks that small kernels wait for Python. `torch.compile` specialises on shapes
(`dynamic=False`) and must take a block whole (`fullgraph=True`).

diffusers has `compile_repeated_blocks` for the same idea. It is not enough here for four reasons, which is why these
lines are ours: it knows no blocks of rewards and only one class of a UNet's; it puts all shapes of a class behind one
list of at most eight compilations, which a UNet's blocks overrun; torch's own guards do not see which attention kernels
are allowed (`models.attention`); and a block that cannot be compiled would end a training that can go on without.

Blocks are compiled in place, so parameters keep their names, and copies of a network (`copy.deepcopy`,
`weight_sharing_copy`) run eagerly until they are compiled themselves. Compiled code is used inside `compiled_passes`
alone: samples, comparisons and monitors, whose batches have other shapes, run eagerly and so give the same bits with
compilation and without.
"""

from __future__ import annotations

import functools
import os
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ..errors import first_line
from ..utils.paths import cache_place

Backend = str | Callable[..., Any]
CompileMode = Literal["on", "graphs"]

RESIDUAL = "ResnetBlock2D"
"""The blocks of convolutions of diffusers' UNets and autoencoders, which no UNet declares as repeated."""

MOST_VARIANTS = 64
"""Compilations of one class and shape of block: with and without a graph, frozen and trained, each size of batch. torch
gives up after 8."""

TOKENS = 3
"""Dimensions of a batch of sequences."""

CACHE = "TORCHINDUCTOR_CACHE_DIR"


@dataclass
class CompileReport:
    """What has been compiled in this process.

    Attributes:
        graphs: compilations so far.
        seconds: that passes took in which something was compiled.
        eager: why blocks of a class run eagerly, by the class's name.
    """

    graphs: int = 0
    seconds: float = 0.0
    eager: dict[str, str] = field(default_factory=dict)

    def warnings(self) -> list[str]:
        """A sentence for each class of blocks that is not compiled."""
        return [
            f"Blocks of class {name} run eagerly, because they cannot be compiled: {reason.rstrip('.')}. "
            "Results are right, and steps are slower. compile=off leaves compilation out."
            for name, reason in self.eager.items()
        ]

    def summary(self) -> dict[str, Any]:
        """For a run's `summary.json`."""
        return {"graphs": self.graphs, "seconds": round(self.seconds, 1), "eager": dict(self.eager)}


@dataclass
class _State:
    """Of this process: what is compiled, and whether compiled code is used at the moment."""

    active: bool = False
    graphs: bool = False
    report: CompileReport = field(default_factory=CompileReport)
    shared: dict[tuple[Any, ...], SharedBlock] = field(default_factory=dict)


def _with_code_of_its_own(name: str, function: Any) -> Any:
    """The function under a name: torch keeps compilations by code object, and looks through all that one has."""
    code = function.__code__.replace(co_name=name)
    return types.FunctionType(code, function.__globals__, name, None, function.__closure__)


class SharedBlock:
    """The compiled forward pass that blocks of one class, options and shapes share.

    Args:
        kind: the blocks' class.
        forward: its method.
        mode: `"on"`, or `"graphs"` for CUDA graphs.
        backend: torch's.
    """

    def __init__(self, kind: type, forward: Callable[..., Any], mode: CompileMode, backend: Backend):
        # An argument that torch guards: of its own accord it does not compile anew where other kernels are allowed.
        own = _with_code_of_its_own(
            kind.__name__, lambda block, fused_attention, args, kwargs: forward(block, *args, **kwargs)
        )
        options: dict[str, Any] = {"mode": "reduce-overhead"} if mode == "graphs" else {}
        self.name = kind.__name__
        self.forward = forward
        self.compiled: Callable[..., Any] | None = torch.compile(
            own, fullgraph=True, dynamic=False, backend=backend, **options
        )

    def __call__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from torch._dynamo.exc import TorchDynamoException
        from torch._dynamo.utils import counters

        if self.compiled is None:
            return self.forward(block, *args, **kwargs)
        fused = torch.backends.cuda.flash_sdp_enabled()
        before, started = counters["stats"]["unique_graphs"], time.perf_counter()
        try:
            return self.compiled(block, fused, args, kwargs)
        except TorchDynamoException as error:
            self._give_up(error)
            return self.forward(block, *args, **kwargs)
        finally:
            made = counters["stats"]["unique_graphs"] - before
            if made:
                _STATE.report.graphs += made
                _STATE.report.seconds += time.perf_counter() - started

    def _give_up(self, error: Exception) -> None:
        """Run these blocks eagerly from now on; where only one more shape is too many, only that shape."""
        limit = "recompile" in type(error).__name__.lower()
        if not limit:
            self.compiled = None
        reason = f"more than {MOST_VARIANTS} shapes" if limit else first_line(error)
        _STATE.report.eager.setdefault(self.name, reason)


class CompiledForward:
    """Stands in for the `forward` of one block. In copies of the block, its own method stands again.

    Args:
        block: whose it is.
        shared: compiled pass of all such blocks.
        with_graph: whether only passes that keep a graph are compiled.
    """

    def __init__(self, block: nn.Module, shared: SharedBlock, with_graph: bool):
        self.block, self.shared, self.with_graph = block, shared, with_graph
        functools.update_wrapper(self, shared.forward, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not _STATE.active or (self.with_graph and not torch.is_grad_enabled()):
            return self.shared.forward(self.block, *args, **kwargs)
        # Tokens that an embedding has transposed come to the first block of a row alone: in their own order they would
        # be a compilation of their own.
        inputs = tuple(
            value.contiguous() if isinstance(value, torch.Tensor) and value.ndim == TOKENS else value for value in args
        )
        return self.shared(self.block, inputs, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo.get(id(self.block))
        return types.MethodType(self.shared.forward, copied) if copied is not None else self


_STATE = _State()


def report() -> CompileReport:
    """What this process has compiled so far."""
    return _STATE.report


def forget_compilations() -> None:
    """Start anew: networks that are compiled from now on share nothing with those before, and the report is empty."""
    _STATE.shared.clear()
    _STATE.graphs, _STATE.report = False, CompileReport()


@contextmanager
def compiled_passes() -> Iterator[None]:
    """Inside, compiled blocks run compiled; one update of a network is one such context.

    With CUDA graphs, what passes left in the graphs' memory may be overwritten by the next context's passes.
    """
    if _STATE.graphs:
        torch.compiler.cudagraph_mark_step_begin()
    before, _STATE.active = _STATE.active, True
    try:
        yield
    finally:
        _STATE.active = before


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of a network that are worth compiling.

    Those whose classes the network declares as repeated (diffusers) or as not to be split (diffusers, transformers),
    and the residual blocks of diffusers' UNets and autoencoders. Of a network that declares none, as open_clip's and
    most people's own: rows of modules of one class, the innermost that have parts.
    """
    declared = {RESIDUAL}
    for module in network.modules():
        declared.update(getattr(module, "_repeated_blocks", None) or getattr(module, "_no_split_modules", None) or ())
    rows = [module for module in network.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    known = {id(block): block for row in rows for block in row if type(block).__name__ in declared}
    blocks = list(known.values()) or list(_innermost_rows(network))
    inside = {id(part) for block in blocks for part in block.modules() if part is not block}
    return [block for block in blocks if id(block) not in inside]


def _innermost_rows(module: nn.Module) -> Iterator[nn.Module]:
    """Blocks with parts that stand in a row with another of their class, and contain no such row themselves."""
    for child in module.children():
        inner = list(_innermost_rows(child))
        if inner or not isinstance(child, nn.ModuleList | nn.Sequential):
            yield from inner
            continue
        kinds = [type(block) for block in child]
        for block in child:
            parts = any(True for _ in block.children()) and any(True for _ in block.parameters())
            if parts and kinds.count(type(block)) > 1:
                yield block


def compile_blocks(
    network: nn.Module, mode: CompileMode = "on", *, with_graph: bool = False, backend: Backend = "inductor"
) -> int:
    """Compile the repeated blocks of a network in place.

    Nothing is compiled yet: a block is when it first runs inside `compiled_passes`. Where that is impossible, blocks of
    its class run eagerly and `report` says why.

    Args:
        network: of any kind; adapters come before, a device or shards after.
        mode: `"on"`, or `"graphs"` to replay CUDA graphs as well, which needs a GPU.
        with_graph: compile only passes that keep a graph, as of rewards, whose other passes have any shape.
        backend: torch's.

    Returns:
        How many blocks they are.
    """
    import torch._dynamo.config as limits
    import torch._functorch.config as graphs

    keep_compilations()
    limits.cache_size_limit = max(limits.cache_size_limit, MOST_VARIANTS)
    # Rewards go back through one decode in turn: code that may write over what its graph keeps refuses a second time.
    graphs.donated_buffer = False
    blocks = [block for block in repeated_blocks(network) if "forward" not in vars(block)]
    for block in blocks:
        kind = type(block)
        key = (kind, mode, backend, tuple((name, tuple(weight.shape)) for name, weight in block.named_parameters()))
        if key not in _STATE.shared:
            _STATE.shared[key] = SharedBlock(kind, kind.forward, mode, backend)
        block.forward = CompiledForward(block, _STATE.shared[key], with_graph)
    _STATE.graphs = _STATE.graphs or (mode == "graphs" and bool(blocks))
    return len(blocks)


def uncompile_blocks(network: nn.Module) -> None:
    """Undo `compile_blocks`."""
    for module in network.modules():
        if isinstance(vars(module).get("forward"), CompiledForward):
            del module.forward


def keep_compilations() -> None:
    """Let torch keep compilations between runs in `$DIPP_CACHE/compiled`, unless the user has named another place.

    torch reads pickles from that folder: it is made for its owner alone, and where it is somebody else's, torch's own
    place for each user is used.
    """
    if CACHE in os.environ:
        return
    place: Path = cache_place("compiled")
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = not hasattr(os, "getuid") or (place.stat().st_uid == os.getuid() and not place.stat().st_mode & 0o022)
    except OSError:
        return
    if own:
        os.environ[CACHE] = str(place.resolve())
