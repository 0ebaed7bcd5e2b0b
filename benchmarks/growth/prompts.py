"""Reading n prompts from a `.jsonl`, taking a seeded half of them, and an epoch of their order in batches of 32."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

SIZES = (70_000, 140_000, 280_000)
BATCH = 32


def write(path: Path, n: int) -> None:
    """So many different prompts."""
    with path.open("w", encoding="utf-8") as file:
        for k in range(n):
            text = f"a photo of a red cat on a chair, number {k} of a long series"
            file.write(json.dumps({"id": str(k), "prompt": text, "category": str(k % 7)}) + "\n")


def measure(n: int) -> dict[str, float]:
    """Seconds of the processor's time."""
    from dipp_toolkit import load_prompts
    from dipp_toolkit.prompts.sampler import PromptOrder

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.jsonl"
        write(path, SIZES[0])
        load_prompts(str(path))  # libraries are loaded before anything is measured
        write(path, n)
        started = time.process_time()
        load_prompts(str(path))
        read = time.process_time()
        load_prompts(f"{path}?count={n // 2}&seed=1")
        halved = time.process_time()
    order = PromptOrder(n, 0)
    ordering = time.process_time()
    for start in range(0, n - BATCH, BATCH):
        order.take(start, BATCH)
    return {
        "seconds to read the file": read - started,
        "seconds to read it and take half": halved - read,
        "seconds for an epoch's order": time.process_time() - ordering,
    }
