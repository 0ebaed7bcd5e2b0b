r"""Deterministic kernels of a GPU: where they are asked for, where torch has none, and operations of our own instead.

torch has two ways. Strictly, an operation without a deterministic kernel raises. With `warn_only` it runs as usual, but
then attention's backward passes (flash, memory-efficient and cuDNN's) are *not* deterministic either, though they could
be. So a run is strict, and lets ordinary kernels run where it has to: in a reward that needs one (`Tolerance`).

The backward passes of an antialiased resize and of adaptive pooling have none, and every reward model resizes. Both
operations are linear and separable, $y = A_h x A_w^T$ for each channel, so that the way back is two products,
$A_h^T g A_w$: `resized` and `pooled_to` go back by these on a GPU that is to be deterministic. Ours because no library
has them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
MISSING = "does not have a deterministic implementation"
"""torch's words."""
Made = TypeVar("Made")


@contextmanager
def deterministic_kernels(device: torch.device, wanted: bool = True) -> Iterator[None]:
    """Inside, operations on a GPU use their deterministic kernels, and one that has none raises; a CPU's always are.

    Args:
        device: where the training runs.
        wanted: False changes nothing.
    """
    if not wanted or device.type != "cuda":
        yield
        return
    before = os.environ.get(WORKSPACE)
    os.environ.setdefault(WORKSPACE, ":4096:8")  # read when cuBLAS is first used
    try:
        with _kernels(warn_only=False):
            yield
    finally:
        if before is None:
            os.environ.pop(WORKSPACE, None)


@contextmanager
def ordinary_kernels() -> Iterator[None]:
    """Inside strict ones, operations that have no deterministic kernel run by their ordinary one, and so does
    attention's backward pass."""
    if not torch.are_deterministic_algorithms_enabled() or torch.is_deterministic_algorithms_warn_only_enabled():
        yield
        return
    with _kernels(warn_only=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f".*{MISSING}.*")
        warnings.filterwarnings("ignore", message=".*defaults to a non-deterministic algorithm.*")
        yield


@contextmanager
def _kernels(warn_only: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    filling, tuned = settings.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    settings.fill_uninitialized_memory = False  # costs a pass over every new tensor
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = filling
        torch.backends.cudnn.benchmark = tuned


def missing_kernel(error: BaseException | None) -> str:
    """The operation that an error says has no deterministic kernel, or its cause does; empty where neither says so."""
    while error is not None:
        words = str(error)
        if MISSING in words and isinstance(error, RuntimeError):
            return words.split(MISSING, maxsplit=1)[0].rsplit(maxsplit=1)[-1]
        error = error.__cause__
    return ""


@dataclass
class Tolerance:
    """Calls somebody's code by deterministic kernels, and by ordinary ones from the first time on that it needs one.

    Attributes:
        needed: the operation that has no deterministic kernel; empty while none was met.
    """

    needed: str = ""

    def __call__(self, work: Callable[[], Made]) -> Made:
        """What `work` returns. It is called again where it needs an ordinary kernel, so it must be repeatable."""
        if not self.needed:
            try:
                return work()
            except Exception as error:
                self.needed = missing_kernel(error)
                if not self.needed:
                    raise
        with ordinary_kernels():
            return work()


def resized(
    images: Float[Tensor, "batch channels height width"], size: tuple[int, int], mode: str
) -> Float[Tensor, "batch channels new_height new_width"]:
    """Resized, antialiased, without aligned corners, as torchvision does it.

    Args:
        images: or latents.
        size: height and width.
        mode: `bilinear` or `bicubic`.
    """
    if _goes_back_by_products(images):
        resize = _Resize((size[0], size[1]), mode)
        taken: Tensor = _Separable.apply(images, resize)
        return taken
    return _Resize((size[0], size[1]), mode)(images)


def pooled_to(
    images: Float[Tensor, "batch channels height width"], size: int | tuple[int, int]
) -> Float[Tensor, "batch channels new_height new_width"]:
    """Means over places, as `adaptive_avg_pool2d` takes them.

    Args:
        images: or features.
        size: places down and across, or one number for both.
    """
    pool = _Pool((size, size) if isinstance(size, int) else size)
    if _goes_back_by_products(images):
        taken: Tensor = _Separable.apply(images, pool)
        return taken
    return pool(images)


def _goes_back_by_products(images: Tensor) -> bool:
    return (
        images.device.type == "cuda"
        and images.requires_grad
        and torch.is_grad_enabled()
        and torch.are_deterministic_algorithms_enabled()
    )


@dataclass(frozen=True)
class _Resize:
    size: tuple[int, int]
    mode: str

    def __call__(self, images: Tensor) -> Tensor:
        return F.interpolate(images, size=self.size, mode=self.mode, antialias=True, align_corners=False)

    def of_a_row(self, width: int) -> _Resize:
        return _Resize((1, width), self.mode)


@dataclass(frozen=True)
class _Pool:
    size: tuple[int, int]

    def __call__(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, self.size)

    def of_a_row(self, width: int) -> _Pool:
        return _Pool((1, width))


class _Separable(torch.autograd.Function):
    """An operation $y = A_h x A_w^T$ of every channel, whose gradient is $A_h^T g A_w$."""

    @staticmethod
    def forward(context: Any, images: Tensor, operation: _Resize | _Pool) -> Tensor:
        context.operation, context.shape = operation, images.shape[-2:]
        return operation(images)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        exact = torch.promote_types(gradient.dtype, torch.float32)
        with torch.autocast(gradient.device.type, enabled=False):
            height, width = (
                _matrix(context.operation.of_a_row(new), old, torch.zeros((), dtype=exact, device=gradient.device))
                for old, new in zip(context.shape, gradient.shape[-2:], strict=True)
            )
            return (height.T @ gradient.to(exact) @ width).to(gradient.dtype), None


def _matrix(operation: _Resize | _Pool, length: int, like: Tensor) -> Float[Tensor, "new old"]:
    """What the operation does to a row: column j is what it makes of the row that is 1 at j."""
    rows = torch.eye(length, device=like.device, dtype=like.dtype)[:, None, None]
    return operation(rows)[:, 0, 0].T
