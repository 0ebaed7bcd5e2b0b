"""Puts recorded tables, and what rewards say of themselves, into the pages: `python tools/build_tables.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def recorded(benchmark: str, page: str = "results.md") -> str:
    """The table that a benchmark wrote."""
    return (ROOT / "benchmarks" / benchmark / page).read_text(encoding="utf-8").strip()


def first_table(benchmark: str) -> str:
    """The first table that a benchmark wrote, and the line that says what it was measured on."""
    title, table, note = recorded(benchmark).split("\n\n")[:3]
    return f"{title}\n\n{table}\n\n{note}"


def published_generators() -> str:
    """A row for each published generator and reference, from its record."""
    from dipp_toolkit.models.readout import recorded_input_scale

    columns = ("generator", "weights", "steps", "timestep", "input", "reference", "licence")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for model in _models("generator"):
        time = _timestep(model)
        scale = model.input_scale or recorded_input_scale(model.blueprint().scheduler_config)
        given = "$z$" if time == "1" or scale == "unit" else r"$\sigma z$"
        cells = (
            f"`{model.name}`",
            _weights(model),
            str(model.steps),
            time,
            given,
            f"`{model.reference}`",
            _terms(model),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| reference | weights | licence |", "|---|---|---|"]
    lines += [f"| `{model.name}` | {_weights(model)} | {_terms(model)} |" for model in _models("reference")]
    return "\n".join(lines)


def _weights(model: Any) -> str:
    """The repository of a network's weights, and the pipeline's where that is another."""
    return f"`{model.hub}`" + (f" over `{model.pipeline}`" if model.hub != model.pipeline else "")


def _models(kind: str) -> list[Any]:
    from dipp_toolkit.models.published import PublishedPipeline
    from dipp_toolkit.registry import get_registry

    entries = get_registry().entries[kind].values()
    return [entry.factory for entry in entries if isinstance(entry.factory, PublishedPipeline)]


def _timestep(model: Any) -> str:
    from dipp_toolkit.diffusion.schedules import VariancePreserving, schedule_from_config

    if not isinstance(schedule_from_config(model.blueprint().scheduler_config), VariancePreserving):
        return "1"
    return "999 of 999" if model.readout is None else f"{round(model.readout * 999)} of 999"


def _terms(model: Any) -> str:
    licence = model.licence
    label = f"[{licence.label}]({licence.link})" if licence.link else licence.label
    if not licence.id:
        return f"{label}: {licence.note}"
    return label + (", not for commercial use" if licence.non_commercial else "")


def reward_facts() -> str:
    """A row for each reward, from what its class says."""
    from dipp_toolkit.rewards.facts import all_facts

    lines = ["| reward | scores | gradient | prompt | licence of the weights |", "|---|---|---|---|---|"]
    for facts in all_facts():
        prompt = "read" if facts.reads_prompts else "no matter"
        cells = [f"`{facts.name}`", _said(facts.range), facts.gradient_text, prompt, _said(facts.licence)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def reward_notes() -> str:
    """Where each reward comes from, and what it is blind to."""
    from dipp_toolkit.rewards.facts import all_facts

    lines = ["| reward | source | blind to |", "|---|---|---|"]
    lines += [f"| `{facts.name}` | {_said(facts.source)} | {_said(facts.blind_to)} |" for facts in all_facts()]
    return "\n".join(lines)


def _said(text: str) -> str:
    return text.replace("|", "\\|") or "not stated"


def plugins(table: str) -> str:
    """A table of `plugin_tables`, by the function's name."""
    import plugin_tables

    made: str = getattr(plugin_tables, table)()
    return made


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "../README.md": {"emoji-quality": partial(first_table, "emoji_quality")},
    "guide/real-models.md": {
        "decode-options": partial(recorded, "decode_options"),
        "frozen-precision": partial(recorded, "frozen_precision"),
        "full-size": partial(recorded, "full_size_step"),
        "scheduler-grid": partial(recorded, "scheduler_grid"),
        "published-generators": published_generators,
        "published-world": partial(recorded, "published_world"),
    },
    "guide/bench.md": {
        "emoji-leaderboard": partial(recorded, "emoji_leaderboard"),
        "emoji-ablation": partial(recorded, "emoji_ablation"),
    },
    "results/emoji-world.md": {
        "emoji-quality": partial(recorded, "emoji_quality"),
        "speedrun": partial(recorded, "speedrun"),
    },
    "guide/read-a-run.md": {"healthy-run": partial(recorded, "healthy_run")},
    "results/family-study.md": {
        "fair-study": partial(recorded, "fair_study"),
        "family-study": partial(recorded, "family_study"),
        "few-step-rl": partial(recorded, "few_step_rl"),
    },
    "guide/tune.md": {"tune": partial(recorded, "tune")},
    "guide/leaderboard.md": {
        "vote-coverage": partial(recorded, "coverage", "votes.md"),
        "vote-picking": partial(recorded, "vote_picking"),
    },
    "operations/rewards-elsewhere.md": {
        "hpsv3-gradient": partial(recorded, "hpsv3_gradient"),
        "deqa-gradient": partial(recorded, "deqa_gradient"),
    },
    "guide/align-by-votes.md": {"hidden-preference": partial(recorded, "hidden_preference")},
    "guide/checkers.md": {"geneval": partial(recorded, "geneval")},
    "guide/fitting-a-reward.md": {"reward-fit": partial(recorded, "reward_fit")},
    "guide/judges.md": {"judge": partial(recorded, "judge")},
    "reference/rewards.md": {
        "reward-facts": reward_facts,
        "reward-notes": reward_notes,
        "reward-costs": partial(recorded, "rewards"),
        "reward-spread": partial(recorded, "rewards", "spread.md"),
    },
    "reference/plugins.md": {
        "own-plugins": partial(plugins, "own_plugins"),
        "known-plugins": partial(plugins, "known_plugins"),
    },
    "guide/rewards.md": {
        "parity": partial(recorded, "reward_parity"),
        "floors": partial(recorded, "floors"),
        "within-prompts": partial(recorded, "black_box", "within_prompts.md"),
        "black-box": partial(recorded, "black_box"),
        "latent-rewards": partial(recorded, "latent_rewards"),
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
