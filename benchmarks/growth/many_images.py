"""FID of 2,048 features and CMMD of 768 with intervals, of n made and n real images: sizes that papers use."""

from __future__ import annotations

import resource
import time

SIZES = (2500, 5000, 10_000)
RESAMPLES = 200


def measure(n: int) -> dict[str, float]:
    """Seconds of the processor's time for the reference set, the number and its standard error, and the memory."""
    import torch

    from dipp_toolkit.evaluation.frechet import ReferenceFrechet
    from dipp_toolkit.evaluation.mmd import gaussian_mmd, kernel_mean, resampled_mmd

    random = torch.Generator().manual_seed(0)
    real, made = torch.randn(2, n, 2048, generator=random)
    started = time.process_time()
    reference = ReferenceFrechet(real)
    reference.distance(made)
    reference.standard_error(made[:, None])
    frechet = time.process_time() - started
    real, made = torch.nn.functional.normalize(torch.randn(2, n, 768, generator=random), dim=2)
    draws = torch.randint(n, (RESAMPLES, n), generator=random)
    counts = torch.stack([draw.bincount(minlength=n) for draw in draws]).double()
    started = time.process_time()
    within = kernel_mean(real, real)
    gaussian_mmd(made, real, y_mean=within)
    resampled_mmd(made, real, counts, y_mean=within)
    discrepancy = time.process_time() - started
    return {
        "seconds for FID": frechet,
        "seconds for CMMD": discrepancy,
        "MiB at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
