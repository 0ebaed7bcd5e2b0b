"""A batch of n prompts of T5's shape, 120 x 4096, read from the prompt cache: bfloat16, 40 tokens; float32, all 120."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

SIZES = (16, 32, 64)
TOKENS, WIDTH, REPEATS = 120, 4096, 5


def measure(n: int) -> dict[str, float]:
    """Milliseconds of the reading thread's processor time, the median of several batches."""
    import torch

    from dipp_toolkit.diffusion.condition import Condition
    from dipp_toolkit.prompts.cache import CachedConditions, PromptCache

    torch.set_num_threads(1)
    numbers = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype, kept in ((torch.bfloat16, 40), (torch.float32, TOKENS)):
            cache = PromptCache(Path(folder) / str(dtype))
            prompts = [f"prompt {k}" for k in range(n)]
            for prompt in prompts:
                hidden = torch.randn(1, TOKENS, WIDTH).to(dtype).float()
                hidden[:, kept:] = 0
                mask = (torch.arange(TOKENS) < kept).long()[None]
                cache.add(
                    Condition((prompt,), {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}), dtype
                )
            conditions, times = CachedConditions(prompts, cache, torch.device("cpu")), []
            for _ in range(REPEATS):
                started = time.thread_time()
                conditions[range(n)]
                times.append(1e3 * (time.thread_time() - started))
            numbers[f"ms, {str(dtype).removeprefix('torch.')}, {kept} tokens"] = sorted(times)[REPEATS // 2]
    return numbers
