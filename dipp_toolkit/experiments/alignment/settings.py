"""What an alignment by votes asks for, and what is checked before anybody is asked to vote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ...config import TrainConfig
from ...errors import RequestError
from ...preferences.fit.backbone import find_backbone
from ...preferences.fit.trainer import check_trl
from ...prompts.loading import load_prompts
from ...protocols import Prompt
from ...training.setup.preflight import Preflight, check_run, dry_run_parts
from ...training.setup.resolve import resolve
from ...utils.device import choose_device
from ...utils.fingerprint import digest_of
from ...utils.paths import check_folder_place
from ..bench.entries import BenchEntry
from ..named_contents import digests_of, names_of, texts_in
from ..voting.candidates import noises, sample
from ..voting.session import check_goal

PULL = 0.3
"""How strongly the fitted reward pulls where nothing else is said, as a share of the divergence's gradient: a scale
would depend on how sure the voters are, which is what a fitted reward's unit is made of."""
LEAST_COMPARED = 20
"""Fewer votes between new and old could not tell a win rate of 70 % from a coin."""

CURRENT, BEFORE, AFTER = "generator", "before", "after"
"""Makers of images: of those that are voted on, and of new against old at the end of a round."""


@dataclass(frozen=True, kw_only=True)
class AlignSettings:
    """An alignment by votes.

    Attributes:
        base: settings of every training; its generator is the first round's, its rewards are mixed with the fitted one.
        out: the folder of all rounds.
        rounds: how many at most.
        votes: that each voter gives on the current generator's images in a round.
        compared: votes of each voter on the new generator against the one before, on held-out prompts.
        prompts: how many prompts are voted on in a round.
        per_prompt: images of every maker for a prompt.
        beside: generators and references whose images are voted on too.
        repeats: share of the votes that ask about a pair again.
        picking: `adaptive` or `random`.
        fit: options of `fit_reward`.
        voters: says who votes, for the record: `people`, or a simulated voter's reward and noise.
        simulate: the reward that votes in place of people; None where people do.
        seed: of prompts, noises, pairs and the fit.
        batch: images made at a time.
    """

    base: TrainConfig
    out: Path
    rounds: int = 3
    votes: int = 300
    compared: int = 100
    prompts: int = 75
    per_prompt: int = 4
    beside: Sequence[BenchEntry] = ()
    repeats: float = 0.05
    picking: str = "adaptive"
    fit: Mapping[str, Any] = field(default_factory=dict)
    voters: str = "people"
    simulate: str | None = None
    seed: int = 0
    batch: int = 8

    def check(self) -> None:
        """Refuse what would fail after people have voted, and numbers out of range.

        Raises:
            RequestError: as a sentence.
            PluginError: the packages of the extra `fit` are missing.
        """
        for flag, value, least in (
            ("--rounds", self.rounds, 1),
            ("--votes", self.votes, 1),
            ("--compared", self.compared, LEAST_COMPARED),
            ("--prompt-count", self.prompts, 2),
            ("--per-prompt", self.per_prompt, 1),
        ):
            if value < least:
                raise RequestError(f"{flag} is {value}; expected at least {least}.")
        if self.per_prompt == 1 and not self.beside:
            raise RequestError(
                "There is nothing to compare: one image for each prompt. Take more with --per-prompt, or name other "
                "generators with --beside."
            )
        pairs = self.prompts * (count := self.per_prompt * (1 + len(self.beside))) * (count - 1) // 2
        if self.votes > pairs:
            raise RequestError(
                f"--votes is {self.votes}, but {self.prompts} prompts with {count} images each have {pairs} pairs. Ask "
                "for fewer votes, or raise --prompt-count or --per-prompt."
            )
        if any(entry.label == CURRENT for entry in self.beside):
            raise RequestError(f"'{CURRENT}' is the label of what is trained; label what --beside names otherwise.")
        check_goal(self.votes, self.repeats)
        noises(self.per_prompt, self.seed)
        check_folder_place(self.out, "folder of an alignment")
        check_trl(choose_device(self.base.device))
        find_backbone(self.fit["backbone"])

    @cached_property
    def trained(self) -> TrainConfig:
        """The settings of a training, complete but for its rewards, its folder and the generator of its round.

        Raises:
            RequestError: a setting cannot be used.
        """
        given = self.base.model_fields_set
        own: dict[str, Any] = {} if given & {"reward_scale", "pull"} else {"reward_scale": "auto", "pull": PULL}
        if "rewards" not in given:  # those that are recommended for the generator are not the voters'
            own["rewards"] = {}
        return resolve(self.base.model_copy(update=own))

    def key(self) -> str:
        """A digest of the settings that the rounds depend on; how many there are, and where, may change."""
        told = self.trained.model_dump(mode="json", exclude={"out", "resume", "device"})
        own = {
            name: getattr(self, name)
            for name in ("votes", "compared", "prompts", "per_prompt", "repeats", "picking", "voters", "seed")
        }
        beside = [[entry.label, entry.name, dict(entry.options)] for entry in self.beside]
        sets = [
            [[prompt.text, prompt.id, prompt.category] for prompt in load_prompts(name).prompts]
            for name in self.prompt_sets
        ]
        return digest_of([told, own, beside, dict(self.fit), sets])

    def contents(self) -> dict[str, str]:
        """Digests of the files and folders that the settings name: of generators, rewards, weights and code."""
        beside = [text for entry in self.beside for text in (entry.name, *texts_in(entry.options))]
        simulated = [self.simulate] if self.simulate is not None else []
        return digests_of([*names_of(self.trained), *beside, *texts_in(self.fit), *simulated])

    @property
    def prompt_sets(self) -> tuple[str, str]:
        """The set that is voted on and trained with, and the one that new and old are compared on; they may be one."""
        config = self.trained
        return str(config.prompts), str(config.eval_prompts or config.prompts)


def prompts_of(settings: AlignSettings, number: int) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts that are voted on for the fit, and those on which new and old are compared; no prompt is in both.

    Args:
        settings: of the alignment.
        number: of the round, which draws prompts of its own to vote on; those to compare on are the same in all.

    Raises:
        RequestError: a set cannot be read, or has too few prompts.
    """
    voted_set, compared_set = settings.prompt_sets
    held_out = load_prompts(compared_set).prompts
    # Of one set for both a half is held out at most.
    most = len(held_out) if compared_set != voted_set else len(held_out) // 2
    held_out = sample(held_out, min(settings.compared, most), settings.seed) if most else []
    texts = {prompt.text for prompt in held_out}
    others = [prompt for prompt in load_prompts(voted_set).prompts if prompt.text not in texts]
    voted = sample(others, min(settings.prompts, len(others)), settings.seed + number)
    if len(voted) < 2 or not held_out:
        raise RequestError(
            f"The prompts {voted_set} are too few: {len(voted)} to vote on, and {len(held_out)} others to compare new "
            "and old on. Name more with --prompts, or others to compare on with --set eval_prompts=SET."
        )
    pairs = len(voted) * (count := settings.per_prompt * (1 + len(settings.beside))) * (count - 1) // 2
    if settings.votes > pairs:
        raise RequestError(
            f"--votes is {settings.votes}, but the {len(voted)} prompts that there are to vote on in {voted_set}, with "
            f"{count} images each, have {pairs} pairs. Ask for fewer votes, raise --per-prompt, or name more prompts "
            "with --prompts."
        )
    return list(voted), list(held_out)


def without(held_out: Sequence[Prompt], settings: AlignSettings) -> list[dict[str, str]] | None:
    """The prompts to train with, for a file of them, where the set has some that new and old are compared on.

    Returns:
        None where it has none of them.
    """
    texts = {prompt.text for prompt in held_out}
    prompts = load_prompts(settings.prompt_sets[0]).prompts
    others = [prompt for prompt in prompts if prompt.text not in texts]
    if len(others) == len(prompts):
        return None
    return [{"prompt": prompt.text, "id": prompt.id, "category": prompt.category} for prompt in others]


def preflight_alignment(settings: AlignSettings) -> Preflight:
    """Look at everything an alignment needs, without loading weights.

    Returns:
        What would be done.

    Raises:
        RequestError: what the alignment would be refused with.
    """
    settings.check()
    voted, compared = prompts_of(settings, 1)
    config = settings.trained
    with dry_run_parts() as parts:
        shared = check_run(config.model_copy(update={"out": settings.out / "round-1" / "run"}), parts)
        rows = {
            "rounds": f"{settings.rounds} at most, each {settings.votes} votes of each voter, a fit, a training and "
            f"{settings.compared} votes on new against old",
            "voters": settings.voters,
            "voted on": f"{len(voted)} prompts, {settings.per_prompt} images of each maker",
            "makers": ", ".join(["the generator", *(entry.label for entry in settings.beside)]),
            "compared on": f"{len(compared)} other prompts",
            **{name: text for name, text in shared.items() if name not in ("folder", "rewards")},
            "rewards": ", ".join(["the fitted one", *config.rewards]),
            "folder": str(settings.out),
        }
        return Preflight(rows, tuple(parts.fetched))
