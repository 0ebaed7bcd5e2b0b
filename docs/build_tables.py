"""Puts recorded tables, and what rewards say of themselves, into the pages: `python docs/build_tables.py`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
REWARDS = {
    "hps": "dipp_hps.reward:HPS",
    "imagereward": "dipp_imagereward.reward:ImageReward",
    "pickscore": "dipp_pickscore.reward:PickScore",
    "aesthetic": "dipp_aesthetic.reward:Aesthetic",
    "clip": "dipp_clip.reward:Clip",
}


def recorded(benchmark: str) -> str:
    """The table that a benchmark wrote."""
    return (ROOT / "benchmarks" / benchmark / "results.md").read_text(encoding="utf-8").strip()


def published_rewards() -> str:
    """A row for each published reward, from its class."""
    lines = ["| reward | scores | licence of the weights | source |", "|---|---|---|---|"]
    for name, place in REWARDS.items():
        module, _, kind = place.partition(":")
        reward = getattr(importlib.import_module(module), kind)
        lines.append(f"| `{name}` | {reward.range} | {reward.licence} | {reward.source} |")
    return "\n".join(lines)


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "real-models.md": {
        "decode-options": partial(recorded, "decode_options"),
        "full-size": partial(recorded, "full_size_step"),
        "scheduler-grid": partial(recorded, "scheduler_grid"),
    },
    "bench.md": {
        "emoji-leaderboard": partial(recorded, "emoji_leaderboard"),
        "emoji-ablation": partial(recorded, "emoji_ablation"),
    },
    "family-study.md": {"family-study": partial(recorded, "family_study")},
    "rewards.md": {
        "published-rewards": published_rewards,
        "parity": partial(recorded, "reward_parity"),
        "floors": partial(recorded, "floors"),
        "black-box": partial(recorded, "black_box"),
    },
}


def render(page: str) -> str:
    """A page with its tables as they are now."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for mark, make in PAGES[page].items():
        before, _, rest = text.partition(f"<!-- {mark} -->")
        after = rest.partition(f"<!-- /{mark} -->")[2]
        text = f"{before}<!-- {mark} -->\n{make()}\n<!-- /{mark} -->{after}"
    return text


if __name__ == "__main__":
    for name in PAGES:
        (ROOT / "docs" / name).write_text(render(name), encoding="utf-8")
