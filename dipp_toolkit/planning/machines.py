"""Published rates of GPUs and of what joins them, and the share of them that a training reaches."""

from __future__ import annotations

UTILISATION = 0.4
"""Share of the published peak that long passes of a network reach, which keep the GPU busy: an assumption."""

REWARD_UTILISATION = 0.1
"""The same of decoding and scoring, whose convolutions and float32 norms wait for memory.

`benchmarks/full_size_step` measured 0.09 to 0.11 on an H100.
"""

LAUNCH = 7e-6
"""Seconds that a call costs before its kernel runs, without compilation; short passes take as long as their calls.

`benchmarks/full_size_step` measured 6.2 to 7.8 microseconds a call of generator and assistant on an H100.
"""

GPUS = {
    "RTX 3090": (71.0, 35.6, 24),
    "RTX 4090": (165.2, 82.6, 24),
    "L40S": (362.0, 91.6, 48),
    "A100": (312.0, 19.5, 80),
    "H100": (989.4, 66.9, 80),
    "H200": (989.4, 66.9, 141),
}
"""Published dense peaks in TFLOP/s (half precision, float32) and memory in GB, from NVIDIA's data sheets."""

TF32 = {"RTX 3090": 35.6, "RTX 4090": 82.6, "L40S": 183.0, "A100": 156.0, "H100": 494.7, "H200": 494.7}
"""Published dense peaks in TFLOP/s of float32 products whose factors are rounded to TF32, from NVIDIA's data sheets."""

HOST_LINKS = {
    "RTX 3090": 32e9, "RTX 4090": 32e9, "L40S": 32e9, "A100": 32e9, "H100": 64e9, "H200": 64e9,
}  # fmt: skip
"""Bytes a second and direction between a GPU and the host's pinned memory: 16 lanes of PCIe 4.0, or 5.0 from the H100
on, as NVIDIA's data sheets name them."""

NODE = 8
"""GPUs of a node."""

LINKS = {"A100": (300e9, 25e9), "H100": (450e9, 50e9), "H200": (450e9, 50e9)}
"""Bytes a second and direction from a GPU to its neighbours in the node (NVLink) and, through its own adapter, out of
the node (200 and 400 Gb/s InfiniBand): published rates, from NVIDIA's data sheets of the GPUs and of DGX systems."""


def ring_rate(gpu: str, processes: int) -> float:
    """Bytes a second that a ring through all processes carries.

    Inside a node it is NVLink's rate. A ring over several nodes leaves each of them through all of its adapters at
    once, so it carries NVLink's rate or that of a node's adapters together, whichever is less.

    Args:
        gpu: one of `LINKS`.
        processes: one a GPU; nodes are full.
    """
    inside, outside = LINKS[gpu]
    return inside if processes <= NODE else min(inside, NODE * outside)
