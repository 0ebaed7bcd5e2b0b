"""Memory that a run and its worker both see: images go there and gradients come back without passing a socket.

It is a file without a name (`memfd_create`), whose descriptor the worker inherits. Nothing is left behind, however
either side ends, and the worker's Python and torch need not be ours: torch's own sharing needs the same version on both
sides, and `multiprocessing.shared_memory` has names that a killed process leaves behind. Where the system has no such
files, everything goes over the socket.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Sequence

import torch
from torch import Tensor

SIZE = 4
"""Bytes of a float32."""


class SharedRoom:
    """Room for two float32 tensors of one shape: the first half for images, the second for gradients.

    Args:
        descriptor: of the file; closed with this object.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    @classmethod
    def made(cls) -> SharedRoom | None:
        """A new one, empty; None where the system has none."""
        if not hasattr(os, "memfd_create") or not hasattr(fcntl, "F_ADD_SEALS"):
            return None
        try:
            descriptor = os.memfd_create("dipp-reward", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:  # refused, in a container perhaps
            return None
        # The worker cannot take away what is read here.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return cls(descriptor)

    def reserve(self, shape: Sequence[int]) -> bool:
        """Make room for two tensors of a shape; False where there is not enough memory."""
        needed = 2 * SIZE * math.prod(shape)
        size = os.fstat(self.descriptor).st_size
        if needed > size:
            try:
                os.posix_fallocate(self.descriptor, size, needed - size)
            except OSError:
                return False
        return needed > 0

    def view(self, shape: Sequence[int], half: int) -> Tensor:
        """One of the two tensors, uncopied; valid until a larger shape is asked for.

        Args:
            shape: of both.
            half: 0 for the images, 1 for the gradients.

        Raises:
            ValueError: the file is too small for the shape.
        """
        count, size = math.prod(shape), os.fstat(self.descriptor).st_size
        if count <= 0 or 2 * SIZE * count > size:
            raise ValueError(f"{size} bytes are shared, too few for two tensors of shape {tuple(shape)}")
        if self._map is None or len(self._map) < 2 * SIZE * count:
            self._map = mmap.mmap(self.descriptor, size)
        flat = torch.frombuffer(self._map, dtype=torch.float32, count=count, offset=half * SIZE * count)
        return flat.reshape(tuple(shape))

    def close(self) -> None:
        """Let go of it; the memory is free once both sides have."""
        self._map = None
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:  # a number that was closed may be somebody else's by now
            os.close(descriptor)
