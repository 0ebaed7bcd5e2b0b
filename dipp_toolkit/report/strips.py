"""The strips of prompts that a picture and a page show, each with the words that say how they were chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..evaluation.intervals import Interval
from ..utils.messages import short_name
from .charts.formatting import decimals_for, text_of
from .shown_prompts import Role, ShownPrompt, ShownPrompts, any_alike

Name = Callable[[str], str]
"""How a reward's name is spelt."""

ROLES: dict[Role, str] = {
    "judge": " (the judge, which nothing was trained on)",
    "measured": " (which nothing was trained on)",
    "trained": " (which was trained on; the run has no judge)",
    "lowered": " (which was trained to fall; the run has no judge)",
}

NO_SCORES = "There are no scores of single prompts to choose by."


@dataclass(frozen=True)
class Strip:
    """Prompts that were chosen in one way.

    Attributes:
        title: what they are.
        text: how they were chosen, and how that is to be read.
        prompts: in the order they are shown in.
        gains: how the score of each went, such as "0.35 \N{RIGHTWARDS ARROW} 1.38"; empty texts without scores.
    """

    title: str
    text: str
    prompts: Sequence[ShownPrompt]
    gains: Sequence[str]


def strips_of(shown: ShownPrompts, prompts: Sequence[str], name: Name = short_name) -> list[Strip]:
    """The largest gains, then the drawn prompts; one strip where there is nothing of the other.

    Args:
        shown: what was chosen.
        prompts: all that were evaluated.
        name: spells the names of rewards.
    """
    count, by = shown.prompts, _score_text(shown, name)

    def strip(title: str, text: str, chosen: Sequence[ShownPrompt]) -> Strip:
        return Strip(title, text, chosen, gain_texts(chosen, [*shown.gained, *shown.drawn]))

    if len(shown.gained) == count or (not shown.by and len(shown.drawn) == count):
        text = f"By falling gain of {by}. {_share_text(shown)}" if shown.by else NO_SCORES
        return [strip(f"All {count} prompts" if count != 1 else "The only prompt", text, shown.gained or shown.drawn)]
    strips = []
    if shown.gained:
        texts = [prompts[one.row] for one in shown.gained]
        spread = "" if any_alike(texts) else ", no two with half of their words in common"
        text = f"The {len(texts)} of {count} prompts whose image gained most by {by}{spread}."
        strips = [
            strip("The largest gains", f"{text} Best cases, not typical ones. {_share_text(shown)}", shown.gained)
        ]
    text = f"{len(shown.drawn)} of {'the same ' if shown.gained else ''}{count} prompts, whatever became of them"
    if shown.gained:
        text += "; some may stand above as well."
    elif shown.by:
        text += f". No image gained by {by}. {_share_text(shown)}"
    else:
        text += f". {NO_SCORES}"
    return [*strips, strip("Drawn at random", text, shown.drawn)]


def _score_text(shown: ShownPrompts, name: Name) -> str:
    names = [name(one) for one in shown.by]
    sums = f"the weighted sum of {', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else ""
    return (sums or "".join(names)) + ROLES.get(shown.role, "")


def _share_text(shown: ShownPrompts) -> str:
    if shown.better is None or shown.prompts < 2:
        return ""
    share, low, high = (f"{100 * value:.0f}" for value in (shown.better.mean, shown.better.low, shown.better.high))
    return f"By the same score {share} % of all {shown.prompts} prompts got better (95 % interval {low} to {high})."


def gain_texts(chosen: Sequence[ShownPrompt], everyone: Sequence[ShownPrompt]) -> list[str]:
    """Scores before and after of the chosen prompts, to three digits of the largest score that is shown of anyone."""
    scores = [score for one in everyone for score in (one.before, one.after) if score is not None]
    decimals = decimals_for([Interval(score, score, score) for score in scores])
    return [
        f"{text_of(one.before, decimals)} \N{RIGHTWARDS ARROW} {text_of(one.after, decimals)}"
        if one.before is not None and one.after is not None
        else ""
        for one in chosen
    ]


def strips_in_short(shown: ShownPrompts | None) -> str:
    """A few words on what a picture shows, for a list of files."""
    if shown is None or not shown.by:
        return "the same prompts and noise, before and after"
    score = " and ".join(map(short_name, shown.by))
    if not shown.drawn:
        return f"all prompts, before and after, the largest gains by {score} first"
    if not shown.gained:
        return f"prompts at random, before and after; none gained by {score}"
    return f"the largest gains by {score}, and prompts at random, before and after"
