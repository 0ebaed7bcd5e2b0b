"""FID, CMMD and recall with intervals, of n made and n real images: features of 256 numbers, one image a prompt."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

SIZES = (250, 500, 1000)
DIMENSIONS = 256


def measure(n: int) -> dict[str, float]:
    """Seconds of the processor's time, of a metric's figures with intervals, and the process's memory."""
    import torch
    from PIL import Image

    from dipp_metrics.against_folder import Cmmd, Fid, PrecisionRecall
    from dipp_toolkit.experiments.bench.statistics import metric_figures

    random = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(2 * n, DIMENSIONS, generator=random), dim=1)
    real, made = unit[:n], unit[n:, None]
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(6):
            Image.new("RGB", (8, 8)).save(Path(folder) / f"{number}.png")
        for name, kind in (("FID", Fid), ("CMMD", Cmmd), ("precision and recall", PrecisionRecall)):
            metric = kind(images=folder, features="pixels")
            metric.real = real  # type: ignore[misc]  # in place of the folder's
            started = time.process_time()
            metric_figures(name, metric, made, [""] * n)
            seconds[f"seconds for {name}"] = time.process_time() - started
    return {**seconds, "MiB at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
