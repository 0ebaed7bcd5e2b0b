"""What the page says in words: its title, facts, warnings, pictures with captions, and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import TrainConfig
from ..monitoring.first_pull import pull_in_words
from ..objective.mixing.kl_budget import LARGEST
from ..planning.recipes.recipe import recipe_text
from ..prompts.subsets import counted_prompts
from .charts.formatting import weight_text
from .rerun_command import setting_text
from .run_files import RunFiles
from .table import finite
from .thumbnails import PIXEL_ART, Thumbnail, evenly, thumbnail

MOST_SMALL, MOST_LARGE = 64, 24
"""Most prompts in the page, for images that are small and for such that have to be shrunk."""
FEW_PROMPTS = 10


@dataclass(frozen=True)
class PromptCard:
    """One prompt with its images, by column, and how its score went, where that is known."""

    prompt: str
    images: Sequence[tuple[str, Thumbnail]]
    gain: str = ""


@dataclass(frozen=True)
class StripCards:
    """Prompts that were chosen in one way, and the words that say how."""

    title: str
    text: str
    cards: Sequence[PromptCard]


@dataclass(frozen=True)
class Setting:
    """One row of the settings table."""

    name: str
    value: str
    meaning: str
    changed: bool


def column_notes(run: RunFiles) -> dict[str, str]:
    """A few words on how each column's images were made."""
    own = run.config.generator_steps
    generator = "1 step" if own == 1 else f"{own} steps"
    return {"reference": f"{run.reference_steps} steps", "before": generator, "after": generator}


def has_images(run: RunFiles) -> bool:
    """Whether the run has images to show."""
    return run.comparison is not None and bool(run.comparison.images)


def small_images(run: RunFiles) -> bool:
    """Whether images are so small that they are shown with hard pixel edges."""
    assert run.comparison is not None
    return max(next(iter(run.comparison.images.values())).shape[-2:]) <= PIXEL_ART


def _card(run: RunFiles, row: int, gain: str = "") -> PromptCard:
    """A prompt's images from the first noise."""
    assert run.comparison is not None
    prompt, images = run.comparison.prompts[row], run.comparison.images
    columns = [name for name in run.columns if name in images]
    return PromptCard(prompt, [(name, thumbnail(images[name][row, 0], f"{prompt}, {name}")) for name in columns], gain)


def strip_cards(run: RunFiles) -> list[StripCards]:
    """The prompts that the picture shows, too."""
    return [
        StripCards(
            strip.title,
            strip.text,
            [_card(run, one.row, gain) for one, gain in zip(strip.prompts, strip.gains, strict=True)],
        )
        for strip in run.strips
    ]


def further_cards(run: RunFiles) -> list[PromptCard]:
    """Prompts spread evenly over those that are not in a strip."""
    if not has_images(run):
        return []
    assert run.comparison is not None
    shown = {one.row for strip in run.strips for one in strip.prompts}
    others = [row for row in range(len(run.comparison.prompts)) if row not in shown]
    most = (MOST_SMALL if small_images(run) else MOST_LARGE) - len(shown)
    return [_card(run, others[index]) for index in evenly(len(others), most)] if others else []


def prompts_of(run: RunFiles) -> str:
    """What the comparison shows and the numbers are of: `"8 prompts of prompts.csv"`."""
    count = len(run.comparison.prompts) if run.comparison else 0
    return counted_prompts(count, run.config.eval_prompts or run.config.prompts or "")


def settings_of(config: TrainConfig) -> list[Setting]:
    """Every setting with its meaning; those that differ from the toolkit's own default are marked."""
    return [
        Setting(
            name,
            setting_text(getattr(config, name)) if getattr(config, name) not in (None, {}, ()) else "none",
            field.description or "",
            getattr(config, name) != field.get_default(call_default_factory=True),
        )
        for name, field in TrainConfig.model_fields.items()
        if name not in {"out", "resume"} and (name != "pull" or config.measures_pull)
    ]


def title_of(run: RunFiles) -> str:
    """What the run did, as a title."""
    config, name_of = run.config, run.spelling.name
    generator, reference = name_of(config.generator or ""), name_of(config.reference or "")
    if not config.rewards:
        return f"Distilling {reference} into {generator or steps_text(config)}"
    *first, last = map(name_of, config.rewards)
    return f"Aligning {generator or reference} to {', '.join(first) + ' and ' if first else ''}{last}"


def steps_text(config: TrainConfig) -> str:
    """The generator's steps in words."""
    return "one step" if config.generator_steps == 1 else f"{config.generator_steps} steps"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def facts_of(run: RunFiles) -> list[tuple[str, str]]:
    """The run in a few words: names and numbers."""
    config, summary, name_of = run.config, run.summary, run.spelling.name
    done = finite(summary.get("steps"))
    steps = config.steps if done is None else int(done)
    seconds = finite(summary.get("seconds"))
    rates = sorted(row["images_per_second"] for row in run.metrics if "images_per_second" in row)
    memory = max((row["memory_mb"] for row in run.metrics if "memory_mb" in row), default=None)
    times = "\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}"
    facts = [
        ("generator", name_of(config.generator or "") or f"the reference's own network, in {steps_text(config)}"),
        ("reference", name_of(config.reference or "")),
        ("recipe", recipe_text(config)),
        (
            "rewards",
            ", ".join(f"{name_of(name)} {times}{weight_text(weight)}" for name, weight in config.rewards.items()),
        ),
        ("rewards of some prompts", setting_text(config.reward_for) if config.reward_for else ""),
        ("floors", ", ".join(f"{name_of(name)} {weight_text(level)}" for name, level in config.floors.items())),
        ("pull of the rewards", run.spelling.text(pull_in_words(run.metrics, config))),
        ("KL budget", budget_text(run)),
        ("training", f"{steps:,} steps of {config.batch_size} images"),
        ("measured on", prompts_of(run) if run.comparison else ""),
        ("time", duration(seconds) if seconds is not None else ""),
        ("speed", f"{rates[len(rates) // 2]:.3g} images a second" if rates else ""),
        ("peak memory", f"{memory / 1024:.1f} GiB" if memory else ""),
        ("seed", str(config.seed)),
    ]
    return [(name, value) for name, value in facts if value]


def budget_text(run: RunFiles) -> str:
    """What became of a KL budget; empty without one."""
    budget = run.config.kl_budget
    last = next((row for row in reversed(run.metrics) if "kl_factor" in row), None)
    if budget is None or last is None:
        return ""
    text = f"{budget:g} nats a dimension; {last['kl_running']:.3g} at the end, the scale times {last['kl_factor']:.3g}"
    held = 1.01 / LARGEST < last["kl_factor"] < LARGEST / 1.01
    return text if held else f"{text}, as far as it goes: the rewards' scale cannot hold this budget"


def warnings_of(run: RunFiles) -> list[str]:
    """The run's own warnings, and what the report itself has to warn of."""
    stopped = run.summary.get("stopped_early")
    sentences = [str(stopped["text"])] if isinstance(stopped, dict) and "text" in stopped else []
    sentences += [str(sentence) for sentence in run.summary.get("warnings") or []]
    sentences = [run.spelling.text(sentence) for sentence in sentences]
    if run.comparison is None:
        sentences.append("There are no images: the run has no samples/comparison.")
    elif len(run.comparison.prompts) < FEW_PROMPTS:
        sentences.append(
            f"The numbers come from {prompts_of(run)} only, so their intervals are rough; raise eval_count."
        )
    return sentences


def environment_of(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """`summary["environment"]`, names of programs and machines with their versions, as text."""
    environment = summary.get("environment")
    return (
        [(str(name).replace("_", "-"), str(value)) for name, value in environment.items()]
        if isinstance(environment, Mapping)
        else []
    )
