"""Blocks of a dry run that are run once: what one costs on inputs of some shapes, every other costs as well.

A block is rehearsed when inputs of new shapes come: on tensors of its own, with its way back, watched by itself. Where
it stands in the network nothing is run then, and the meters are told what it costs: a peak of $m + p$ where $m$ bytes
are alive and the block needs $p$ beside them. Its graph is as many bytes as it held in the rehearsal, and keeps those
of its inputs that it kept there.

Operations are those of the whole network. Bytes are as well, but for one thing: on its way back a rehearsed block is
given whole tensors of its own as gradients, where it may get views of a larger one, or tensors that engine and block
share. Where blocks are joined or have two outputs the peak of the way back is up to 3 % higher for it, and the kernels
up to 1 % more (HunyuanDiT, Qwen-Image; nothing to see in PixArt, SD3 or Stable Diffusion).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from ..models.recomputed_blocks import Recomputed
from ..models.shared_casts import SharedCasts
from .dry_run import DryOffload, Meter, MeterState
from .repeated import Adapter, Repeated, adapters_of, described

Call = Callable[..., Any]


@dataclass(frozen=True)
class _Like:
    """A tensor without its bytes.

    Attributes:
        size: its shape.
        stride: its strides.
        dtype: its dtype.
        graph: whether it has a graph.
        asked: whether its gradient is asked for.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    graph: bool
    asked: bool = False

    @classmethod
    def of(cls, tensor: Tensor) -> _Like:
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.requires_grad)

    def to(self, dtype: torch.dtype) -> _Like:
        return replace(self, dtype=dtype)

    def empty(self) -> Tensor:
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype)


@dataclass(frozen=True)
class _Made:
    """A tensor that a block returns, and its place in one of the storages that the block makes."""

    like: _Like
    storage: int
    offset: int


@dataclass(frozen=True)
class _Given:
    """An input that a block returns as it is."""

    place: int


@dataclass(frozen=True)
class _Work:
    """What meters are told: bytes at the worst moment beside those before, operations, and calls that start kernels."""

    peak: int = 0
    flops: int = 0
    launches: int = 0

    @classmethod
    def since(cls, before: MeterState, meter: Meter) -> _Work:
        return cls(meter.peak - before.now, meter.flops - before.flops, meter.launches - before.launches)

    def tell(self, meter: Meter, before: MeterState) -> None:
        """Count it, and not what was done in its place since `before`; what is alive is counted already."""
        work = (max(before.peak, before.now + self.peak), before.flops + self.flops, before.launches + self.launches)
        meter.state = MeterState(meter.now, *work)


@dataclass
class _Rehearsed:
    """What a block costs.

    Attributes:
        structure: of what it returns.
        outputs: its leaves; those that are neither made nor given are what they are.
        storages: bytes of each storage that outputs are in.
        kept: inputs that its graph keeps, by place.
        held: bytes of its own that its graph holds.
        kept_on: inputs that it keeps after its way back: gradients would need them that nobody asks for.
        left: bytes of its own that it holds then.
        forward: its forward pass.
        backward: its way back.
        gradients: of its inputs by place; a number is the output whose gradient it is.
        adapts: whether its adapters have gradients.
        casts: inputs by place that are cast for all blocks, and to what.
        copies: to the host's memory.
        moved: bytes between device and host.
    """

    structure: TreeSpec
    outputs: list[Any]
    storages: list[int]
    kept: list[int]
    held: int
    forward: _Work
    kept_on: list[int] = field(default_factory=list)
    left: int = 0
    backward: _Work = _Work()
    gradients: dict[int, _Like | int] = field(default_factory=dict)
    adapts: bool = False
    casts: list[tuple[int, torch.dtype]] = field(default_factory=list)
    copies: int = 0
    moved: int = 0

    @property
    def made(self) -> list[_Made]:
        """The outputs that are new."""
        return [output for output in self.outputs if isinstance(output, _Made)]

    @property
    def has_graph(self) -> bool:
        """Whether there is a way back."""
        return any(output.like.graph for output in self.made)

    def make(self) -> list[Tensor]:
        """New outputs."""
        whole = {}
        for output in self.made:
            size = self.storages[output.storage] // output.like.dtype.itemsize
            if output.storage not in whole:
                whole[output.storage] = torch.empty(size, dtype=output.like.dtype)
        return [
            whole[output.storage].as_strided(output.like.size, output.like.stride, output.offset)
            for output in self.made
        ]


class Rehearsals:
    """The equal blocks of an abridged network, each run once for inputs of the same shapes.

    Args:
        network: adapted and faked before, and not copied afterwards.
        offload: what copies graphs to the host, where passes are made inside it.
        known: rehearsals of other networks, in dry runs of the same kind; these are added.
    """

    def __init__(
        self, network: nn.Module, offload: DryOffload | None = None, known: dict[object, Any] | None = None
    ) -> None:
        self._known: dict[object, _Rehearsed | None] = {} if known is None else known
        self._descriptions: dict[int, int] = {}
        self._offload = offload
        self._plain = False
        self._source = torch.zeros((), requires_grad=True)
        self._root = torch.zeros((), requires_grad=True)
        self._toward: Tensor | None = None
        self._beside = False
        self._leads: dict[Any, bool] = {}
        self._casts: dict[object, list[tuple[int, torch.dtype]]] = {}
        self._adapters: dict[int, list[Adapter]] = {}
        repeated = [module for module in network.modules() if isinstance(module, Repeated)]
        firsts = {id(module.block): module.block for module in repeated}
        forwards = {
            key: self._plainly(block.forward) if isinstance(block, Recomputed) else block.forward
            for key, block in firsts.items()
        }
        for block in [*firsts.values(), *repeated]:
            first = block.block if isinstance(block, Repeated) else block
            block.forward = self._standing_for(block, first, forwards[id(first)])  # type: ignore[method-assign]
        for module in network.modules():  # blocks that diffusers recomputes are called by what they stand in
            if (recompute := module.__dict__.get("_gradient_checkpointing_func")) is not None:
                module.__dict__["_gradient_checkpointing_func"] = self._recomputing(recompute, firsts)

    def begin(self, toward: Tensor | None = None, beside: bool = False) -> None:
        """The passes that follow are made in another way.

        Args:
            toward: the leaf whose gradient alone is asked for; None for all.
            beside: whether ways back have a meter of their own, which knows nothing of the graphs that they free.
        """
        self._leads.clear()
        self._toward, self._beside = toward, beside

    def _standing_for(self, block: nn.Module, first: nn.Module, forward: Call) -> Call:
        def called(*args: Any, **kwargs: Any) -> Any:
            return self._call(block, first, forward, (args, kwargs))

        return called

    def _recomputing(self, recompute: Call, firsts: Mapping[int, nn.Module]) -> Call:
        def called(function: Any, *args: Any, **kwargs: Any) -> Any:
            first = function.block if isinstance(function, Repeated) else function

            def run(*args: Any, **kwargs: Any) -> Any:
                return recompute(first, *args, **kwargs)

            if id(first) in firsts:
                return self._call(function, first, self._plainly(run), (args, kwargs), True)
            return self._plainly(run)(*args, **kwargs)

        return called

    def _plainly(self, function: Call) -> Call:
        """A call in which every block is run: what a recomputed one holds is for those around it to say."""

        def run(*args: Any, **kwargs: Any) -> Any:
            before, self._plain = self._plain, True
            try:
                return function(*args, **kwargs)
            finally:
                self._plain = before

        return run

    def _call(
        self, block: nn.Module, first: nn.Module, function: Call, given: tuple[Any, dict[str, Any]], again: bool = False
    ) -> Any:
        """What a block returns.

        Args:
            block: that is called.
            first: the one that stands for it.
            function: computes what the first does.
            given: to it.
            again: whether it is computed again on the way back.
        """
        leaves, structure = tree_flatten(given)
        on_the_way_back = torch._C._current_graph_task_id() != -1  # where recomputed blocks are run again
        if self._plain or on_the_way_back or not all(_can_be_told_apart(leaf) for leaf in leaves):
            return function(*given[0], **given[1])
        narrow = self._narrow_weights(first)
        likes = [self._like(leaf) if isinstance(leaf, Tensor) else leaf for leaf in (*leaves, *narrow)]
        modes = (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"))
        way = (again, self._toward is not None, self._beside, self._offload is not None)
        key = (self._description(first), way, str(structure), *(map(_told_apart_by, likes)), modes)
        if key not in self._known:
            self._known[key] = self._rehearse(_Block(first, function, structure, len(leaves), len(likes)), likes)
        rehearsed = self._known[key]
        if rehearsed is None:
            return function(*given[0], **given[1])
        given_besides = {
            len(likes) + number: cast(SharedCasts, shared_casts(first)).of(leaves[place], dtype)
            for number, (place, dtype) in enumerate(rehearsed.casts)
        }
        own = narrow if block is first else self._narrow_weights(block)
        return self._stand_in(rehearsed, dict(enumerate(leaves)) | given_besides, own)

    def _narrow_weights(self, block: nn.Module) -> list[Tensor]:
        """What a pass has made of a block's adapters."""
        if id(block) not in self._adapters:
            self._adapters[id(block)] = adapters_of(block)
        return [weight for adapter in self._adapters[id(block)] for weight in adapter.narrow or ()]

    def _description(self, block: nn.Module) -> int:
        """A number for all blocks that are described alike."""
        if id(block) not in self._descriptions:
            self._descriptions[id(block)] = _DESCRIPTIONS.setdefault(described(block), len(_DESCRIPTIONS))
        return self._descriptions[id(block)]

    def _like(self, tensor: Tensor) -> _Like:
        """A tensor, and whether its gradient is asked for."""
        like = _Like.of(tensor)
        graph = like.graph and torch.is_grad_enabled()
        return replace(like, graph=graph, asked=graph and (self._toward is None or self._leads_there(tensor)))

    def _leads_there(self, tensor: Tensor) -> bool:
        """Whether the graph of a tensor has the leaf in it whose gradient is asked for."""
        pending: list[Any] = [tensor.grad_fn]
        while pending:
            node = pending.pop()
            if node in self._leads:
                continue
            earlier = [] if node is None else [before for before, _ in node.next_functions if before is not None]
            unknown = [before for before in earlier if before not in self._leads]
            if unknown:
                pending += [node, *unknown]
            else:
                here = getattr(node, "variable", None) is self._toward
                self._leads[node] = here or any(self._leads[before] for before in earlier)
        return tensor is self._toward or self._leads[tensor.grad_fn]

    def _rehearse(self, block: _Block, likes: Sequence[Any]) -> _Rehearsed | None:
        """Run a block by itself; None where nothing else can stand for it."""
        dtypes = [like.dtype if isinstance(like, _Like) else None for like in likes]
        key = (id(block.first), torch.is_autocast_enabled("cpu"), block.count, *dtypes)
        known = self._casts.get(key)
        if not known:
            with self._as_if_nothing_was():
                rehearsed = self._run(block, likes)
            known = self._casts[key] = rehearsed.casts if rehearsed else []
            if not known:
                return rehearsed
        block.casts = known  # they are shared: an earlier block has made them
        with self._as_if_nothing_was():
            return self._run(block, [*likes, *(replace(likes[place], dtype=to) for place, to in known)])

    @contextmanager
    def _as_if_nothing_was(self) -> Iterator[None]:
        meters = [(meter, meter.state) for meter in Meter.active]
        moved = (self._offload.copies, self._offload.moved) if self._offload else (0, 0)
        toward = self._toward
        if toward is not None:  # blocks inside are asked for what leads to this one's inputs
            self._toward = self._source
        try:
            yield
        finally:
            self._toward = toward
            for meter, state in meters:
                meter.state = state
            if self._offload:
                self._offload.copies, self._offload.moved = moved

    def _run(self, block: _Block, likes: Sequence[Any]) -> _Rehearsed | None:
        meter = Meter.active[-1]
        way_back = _WayBack({place: like for place, like in enumerate(likes) if isinstance(like, _Like) and like.asked})
        copies, moved = (self._offload.copies, self._offload.moved) if self._offload else (0, 0)
        begun = meter.now
        with block.lent():
            rehearsed, roots, given = _forward(block, likes, way_back, self._source)
            if rehearsed is None or block.changes_inputs:
                return None
            kept = _alive(given)
            alive = {output.storage for output in rehearsed.made if output.like.graph}
            rehearsed.kept = list(kept)
            made = sum(rehearsed.storages[number] for number in alive)
            rehearsed.held = meter.now - begun - sum(kept.values()) - made
            if self._offload:
                rehearsed.copies, rehearsed.moved = self._offload.copies - copies, self._offload.moved - moved
            if not roots:
                return None if rehearsed.held or any(place < block.count for place in rehearsed.kept) else rehearsed
            end = _Outputs.apply(way_back, *roots)
            roots.clear()
            with Meter() if self._beside else nullcontext():
                if self._toward is None:
                    end.backward()
                else:
                    torch.autograd.grad(end, self._source, allow_unused=True)
                way_back.end()
            kept_on = _alive(given)
            rehearsed.kept_on = list(kept_on)
            rehearsed.left = meter.now - begun - sum(kept_on.values()) - end.nbytes
        if way_back.work:  # there is none where nothing leads to what is asked for
            rehearsed.backward = way_back.work
        rehearsed.gradients = way_back.gradients
        rehearsed.adapts = any(block.count <= place < block.narrow for place in way_back.gradients)
        return rehearsed

    def _stand_in(self, rehearsed: _Rehearsed, leaves: Mapping[int, Any], narrow: Sequence[Tensor]) -> Any:
        """What a block returns, from what its rehearsal was."""
        if self._offload:
            self._offload.copies += rehearsed.copies
            self._offload.moved += rehearsed.moved
        if rehearsed.has_graph:
            kept = {place: leaf for place, leaf in leaves.items() if place in rehearsed.kept}
            asked = {place: leaf for place, leaf in leaves.items() if isinstance(leaf, Tensor) and leaf.requires_grad}
            made = list(_StandIn.apply(rehearsed, list(asked), kept, self._root, *asked.values(), *narrow))
        else:
            made = _told(rehearsed)
        outputs = [
            made.pop(0) if isinstance(output, _Made) else leaves[output.place] if isinstance(output, _Given) else output
            for output in rehearsed.outputs
        ]
        return tree_unflatten(outputs, rehearsed.structure)


def shared_casts(block: nn.Module) -> SharedCasts | None:
    """Where the adapters of a block look for their inputs in half precision."""
    return next((casts for adapter in adapters_of(block) if (casts := getattr(adapter, "casts", None))), None)


@dataclass
class _Block:
    """What is rehearsed.

    Attributes:
        first: the block.
        function: computes what it does.
        structure: of what it is given.
        count: leaves of that.
        narrow: the same with the narrow weights of adapters, that follow. Then come casts that are known.
        casts: of what was given, by place.
        changes_inputs: whether it has put something else into a list or mapping that it was given.
    """

    first: nn.Module
    function: Call
    structure: TreeSpec
    count: int
    narrow: int
    casts: list[tuple[int, torch.dtype]] = field(default_factory=list)
    changes_inputs: bool = False

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Inside, its adapters may be given other narrow weights."""
        before = [(adapter, adapter.narrow) for adapter in adapters_of(self.first)]
        try:
            yield
        finally:
            for adapter, narrow in before:
                adapter.narrow = narrow

    def __call__(self, inputs: Sequence[Any]) -> Any:
        """What it returns."""
        weights = iter(inputs[self.count :])
        for adapter in adapters_of(self.first):
            if adapter.narrow is not None:
                adapter.narrow = (next(weights), next(weights))
        for place, _ in self.casts:
            cast(SharedCasts, shared_casts(self.first)).know(inputs[place], next(weights))
        given = inputs[: self.count]
        args, kwargs = tree_unflatten(list(given), self.structure)
        result = self.function(*args, **kwargs)
        left = tree_flatten((args, kwargs))[0]
        self.changes_inputs = len(left) != len(given) or any(a is not b for a, b in zip(left, given, strict=True))
        return result

    def casts_made(self, inputs: Sequence[Any]) -> list[tuple[int, torch.dtype]]:
        """What of its inputs was cast for all who ask."""
        casts = shared_casts(self.first)
        if casts is None:
            return []
        given = [(place, leaf) for place, leaf in enumerate(inputs[: self.count]) if isinstance(leaf, Tensor)]
        return [(place, dtype) for place, leaf in given if (dtype := casts.dtype_of(leaf)) is not None]


_DESCRIPTIONS: dict[object, int] = {}


def _forward(
    block: _Block, likes: Sequence[Any], way_back: _WayBack, token: Tensor
) -> tuple[_Rehearsed | None, list[Tensor], dict[int, weakref.ref[torch.UntypedStorage]]]:
    """A block's forward pass on tensors of its own, its outputs that have a graph, and the storages of its inputs."""
    meter = Meter.active[-1]
    inputs = [
        like.empty().requires_grad_(like.graph) if isinstance(like, _Like) and not like.asked else like
        for like in likes
    ]
    if way_back.likes:
        for place, tensor in zip(way_back.likes, _Inputs.apply(way_back, token), strict=True):
            inputs[place] = tensor
    storages = {place: tensor.untyped_storage() for place, tensor in enumerate(inputs) if isinstance(tensor, Tensor)}
    places = {storage._cdata: place for place, storage in storages.items()}
    meter.peak = meter.now
    before = meter.state
    result = block(inputs)
    forward = _Work.since(before, meter)

    returned, shape = tree_flatten(result)
    outputs, made, sizes = list[Any](), dict[int, int](), list[int]()
    for leaf in returned:
        if not isinstance(leaf, Tensor):
            outputs.append(leaf)
            continue
        storage, like = leaf.untyped_storage(), _Like.of(leaf)
        if storage._cdata in places:
            place = places[storage._cdata]
            if like != _Like.of(inputs[place]):
                return None, [], {}
            outputs.append(_Given(place))
            continue
        if storage._cdata not in made:
            made[storage._cdata] = len(sizes)
            sizes.append(storage.nbytes())
        outputs.append(_Made(like, made[storage._cdata], int(leaf.storage_offset())))
    rehearsed = _Rehearsed(shape, outputs, sizes, [], 0, forward, casts=block.casts_made(inputs))
    roots = [
        leaf for leaf, output in zip(returned, outputs, strict=True) if isinstance(output, _Made) and output.like.graph
    ]
    return rehearsed, roots, {place: weakref.ref(storage) for place, storage in storages.items()}


def _alive(given: Mapping[int, weakref.ref[torch.UntypedStorage]]) -> dict[int, int]:
    """Bytes of the inputs that something still holds, by place."""
    return {place: storage.nbytes() for place, reference in given.items() if (storage := reference()) is not None}


def _can_be_told_apart(leaf: Any) -> bool:
    """Whether a block that is given this can be known again: it is a tensor, or equal things mean equal work."""
    if isinstance(leaf, Tensor):
        return True
    parts = getattr(leaf, "__dict__", {}).values()
    graph = any(isinstance(part, Tensor) and part.requires_grad for part in parts)
    return not graph and type(leaf).__hash__ is not None


def _told_apart_by(leaf: Any) -> object:
    """What says that a leaf is the same, and does not keep it."""
    return (type(leaf), leaf) if type(leaf).__module__ == "builtins" or isinstance(leaf, _Like) else weakref.ref(leaf)


class _WayBack:
    """A rehearsal's way back, between the gradients of what a block returned and those of what it was given.

    Attributes:
        likes: inputs whose gradients are asked for, by place.
        roots: outputs whose gradients there are.
        work: what the meter saw.
        gradients: of the inputs.
    """

    def __init__(self, likes: Mapping[int, _Like]) -> None:
        self.likes = likes
        self.roots: list[_Like] = []
        self.work: _Work | None = None
        self.gradients: dict[int, _Like | int] = {}
        self._begun: MeterState | None = None
        self._given: list[weakref.ref[torch.UntypedStorage]] = []

    def begin(self) -> list[Tensor]:
        """Gradients of what was returned."""
        gradients = [like.empty() for like in self.roots]
        self._given = [weakref.ref(gradient.untyped_storage()) for gradient in gradients]
        meter = Meter.active[-1]
        meter.peak = meter.now
        self._begun = meter.state
        return gradients

    def end(self, gradients: Sequence[Tensor | None] = ()) -> None:
        """The block is through, for the first time that this is said."""
        if self.work or self._begun is None:
            return
        self.work = _Work.since(self._begun, Meter.active[-1])
        for place, gradient in zip(self.likes, gradients, strict=False):
            if gradient is not None:
                self.gradients[place] = self._passed_on(gradient)

    def _passed_on(self, gradient: Tensor) -> _Like | int:
        own = gradient.untyped_storage()
        for number, reference in enumerate(self._given):
            storage = reference()
            if storage is not None and storage._cdata == own._cdata and _Like.of(gradient) == self.roots[number]:
                return number
        return _Like.of(gradient)


class _Inputs(Function):
    """Makes a rehearsal's inputs, which nothing but the block then holds."""

    @staticmethod
    def forward(ctx: Any, way_back: _WayBack, token: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.way_back = way_back
        return tuple(like.empty() for like in way_back.likes.values())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, None]:
        ctx.way_back.end(gradients)
        return None, None


class _Outputs(Function):
    """Begins a rehearsal's way back, with gradients that nothing but the engine holds."""

    @staticmethod
    def forward(ctx: Any, way_back: _WayBack, *roots: Tensor) -> Tensor:
        ctx.way_back = way_back
        way_back.roots = [_Like.of(torch.empty(root.shape, dtype=root.dtype)) for root in roots]
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.way_back.begin()


def _told(rehearsed: _Rehearsed) -> list[Tensor]:
    """New outputs, and meters that know what they cost."""
    before = [(meter, meter.state) for meter in Meter.active]
    made = rehearsed.make()
    for meter, state in before:
        rehearsed.forward.tell(meter, state)
        meter.now += rehearsed.held
    return made


class _StandIn(Function):
    """A block with a way back that was rehearsed."""

    @staticmethod
    def forward(
        ctx: Any, rehearsed: _Rehearsed, places: list[int], kept: dict[int, Tensor], token: Tensor, *asked: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.rehearsed, ctx.places, ctx.kept = rehearsed, places, kept
        ctx.narrow = [_Like.of(weight) for weight in asked[len(places) :]]
        ctx.meters = tuple(Meter.active)
        made = _told(rehearsed)
        plain = [tensor for tensor, output in zip(made, rehearsed.made, strict=True) if not output.like.graph]
        ctx.mark_non_differentiable(*plain)
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        rehearsed = ctx.rehearsed
        before = [(meter, meter.state) for meter in Meter.active]
        graph = [gradient for gradient, output in zip(gradients, rehearsed.made, strict=True) if output.like.graph]
        own = []
        for place in ctx.places:
            known = rehearsed.gradients.get(place)
            own.append(graph[known] if isinstance(known, int) else None if known is None else known.empty())
        own += [weight.empty() if rehearsed.adapts else None for weight in ctx.narrow]
        for meter, state in before:
            rehearsed.backward.tell(meter, state)
        for meter in ctx.meters:
            meter.now -= rehearsed.held - rehearsed.left
        ctx.kept = {place: ctx.kept[place] for place in rehearsed.kept_on if place in ctx.kept}
        return None, None, None, None, *own
