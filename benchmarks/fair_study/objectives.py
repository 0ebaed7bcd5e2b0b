"""The siblings that are compared, and every setting that they share, whatever is recommended by then."""

from __future__ import annotations

from typing import Any

UPDATES = 40
"""Generator updates of every run but those under equal time."""

SIBLINGS: dict[str, dict[str, Any]] = {
    "di++": {"term": "integral_kl", "weighting": "dmd"},
    "di++ snr": {"term": "integral_kl", "weighting": "snr"},
    "di++ uniform": {"term": "integral_kl", "weighting": "uniform"},
    "di*": {"term": "score_divergence", "weighting": "dmd"},
    "didr": {"term": "diffused_reward", "weighting": "dmd"},
    "f-divergence": {"term": "f_divergence", "weighting": "dmd"},
}
"""By the name in tables and figures. What has no scale of its own to be searched is not a sibling: `reward only` (Adam
divides its scale out) and `distillation` are in `benchmarks/family_study`, as is the policy gradient."""

PACE = "di++"
"""Whose time the runs under equal time get."""

SHARED: dict[str, Any] = {
    "prompts": "emoji-train",
    "eval_prompts": "emoji-heldout",
    "rewards": {"emoji-preference": 1.0, "emoji-clip": 0.02},
    "judge": None,
    "batch_size": 32,
    "accumulation": 1,
    "learning_rate": 1e-4,
    "assistant_learning_rate": 4e-4,
    "assistant_rounds": 1,
    "assistant_warmup": 0,
    "reuse_samples": False,
    "warmup": 0,
    "cooldown": 20,
    "ema": 0.8,
    "max_grad_norm": 1.0,
    "balance": "sum",
    "time_range": (0.02, 0.98),
    "time_sampling": "uniform",
    "generator_steps": 1,
    "mode": "full",
    "optimizer": "adam",
    "precision": "fp32",
    "compile": "off",
    "device": "cpu",
    "checkpoint_every": 20,
    "keep_checkpoints": 1,
    "sample_every": 10**6,
    "eval_count": 2,
    "reference_steps": 1,
    "reference_guidance": 1.0,
    "monitor_every": 0,
    "diagnose_every": 0,
}
"""Written out, so that a recommendation that changes while the study is done changes no run of it. `fp32` on every
machine: rows of several are put into one table."""
