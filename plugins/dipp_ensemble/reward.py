r"""Rewards that are asked together, and how far they disagree.

With members $r_1 \dots r_n$, each in units of its own $z_i = (r_i - m_i) / d_i$,

$$r = \bar z - k\, s, \qquad \bar z = \frac1n \sum_i z_i, \qquad s^2 = \frac1{n-1} \sum_i (z_i - \bar z)^2.$$

A generator that exploits one reward model leaves the images that model was fitted to, and there models disagree: the
lower bound costs it what it gains (Coste et al. 2024, arXiv 2310.02743, who call it uncertainty-weighted optimisation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.protocols import Reward, close, moved
from dipp_toolkit.rewards.code_digests import identity_of
from dipp_toolkit.rewards.groups import refuse_alone
from dipp_toolkit.rewards.loading import AsksServer, FunctionReward, files_of, find_reward, load_reward
from dipp_toolkit.rewards.remote.proxy import ProxyReward
from dipp_toolkit.rewards.scores import ask, check_inputs
from dipp_toolkit.utils.fingerprint import digest_of
from dipp_toolkit.utils.images import Images
from dipp_toolkit.utils.messages import quoted

ROUND = 1e-12
"""Added to $s^2$, so that members that agree to the bit have a gradient."""
EXAMPLE = "members=hps+imagereward"


class Ensemble:
    """The lower bound $\\bar z - k s$ of several rewards.

    Args:
        members: names as `--reward` takes them, joined by `+`, or a list of them; two or more.
        k: how many deviations are taken off, 0 or more.
        units: of each member, by name: its mean and its deviation over images that are to count alike. Needed unless
            all members are of one class with weights of their own, since a cosine and a rating cannot disagree.
        options: of the members, by name.

    Raises:
        RequestError: there are fewer than two members, one is unknown, or an option cannot be used.
    """

    name = "ensemble"
    range = "deviations of its members' scores, around 0 where units are given"
    licence = "those of its members"
    source = "Coste et al. 2024, arXiv 2310.02743"
    blind_to = "what all members are blind to: where they are wrong together they do not disagree"
    gradient = "through all members, where each has one"
    asks = "its members"

    def __init__(
        self,
        members: str | Sequence[str] = "",
        *,
        k: float = 1.0,
        units: Mapping[str, Sequence[float]] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        names = _names(members)
        if isinstance(k, bool) or not isinstance(k, (int, float)) or not 0 <= k < float("inf"):
            raise RequestError(f"The option k of the reward 'ensemble' is {k!r}; expected a number, 0 or more.")
        for option, value in (("units", units or {}), ("options", options or {})):
            foreign = sorted(set(value) - set(names)) if isinstance(value, Mapping) else [""]
            if foreign:
                raise RequestError(
                    f"The option {option} of the reward 'ensemble' is {quoted(value)}; expected a value for each of "
                    f"{', '.join(names)}."
                )
        self.k = float(k)
        self.names = names
        self.members: list[Reward] = [load_reward(name, **dict((options or {}).get(name, {}))) for name in names]
        for name, member in zip(names, self.members, strict=True):
            refuse_alone(name, member, "An ensemble")
        self.units = _units(names, self.members, units)

    @classmethod
    def find_files(cls, members: str | Sequence[str] = "", **others: Any) -> list[Path]:
        """The files of the members' weights, as far as these say.

        Raises:
            RequestError: a member is unknown, or a file is not there.
        """
        options, files = others.get("options") or {}, []
        for name in _names(members):
            own = dict(options.get(name, {}))
            files += files_of(find_reward(name, **own), own) or []
        return files

    @property
    def differentiable(self) -> bool | None:
        """Whether all members are; None where one of them does not say, and none says no."""
        said = [member.differentiable for member in self.members]
        return False if False in said else None if None in said else True

    def to(self, device: torch.device | str) -> Ensemble:
        """Move the members; returns itself."""
        self.members = [moved(member, device) for member in self.members]
        return self

    def close(self) -> None:
        """End the processes and connections of members that hold any."""
        for member in self.members:
            close(member)

    def score_identity(self) -> str:
        """A digest of what decides a score: the members', in order, their units and k."""
        return digest_of([[identity_of(member) for member in self.members], self.units, self.k])

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        r"""$\bar z - k s$, differentiable where all members are."""
        scores = self.standardised(images, prompts)
        return scores.mean(0) - self.k * _deviation(scores)

    @torch.no_grad()
    def doubt(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """How far the members disagree about each image: s."""
        return _deviation(self.standardised(images, prompts))

    def standardised(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, "members batch"]:
        """The members' scores in units of their own."""
        check_inputs(self.name, images, prompts)
        return torch.stack(
            [
                (ask(name, member, images, prompts, finite=False) - level) / spread
                for name, member, (level, spread) in zip(self.names, self.members, self.units, strict=True)
            ]
        )


def _names(members: str | Sequence[str]) -> list[str]:
    """The members' names.

    Raises:
        RequestError: there are fewer than two, or one is named twice.
    """
    names = [name.strip() for name in members.split("+")] if isinstance(members, str) else list(members)
    names = [name for name in names if name]
    if len(names) < 2 or len(set(names)) < len(names):
        raise RequestError(f"An ensemble has two members or more, each once, as in {EXAMPLE}; got {quoted(members)}.")
    return names


def _deviation(scores: Float[Tensor, "members batch"]) -> Float[Tensor, " batch"]:
    return (scores.var(0) + ROUND).sqrt()


def _units(
    names: Sequence[str], members: Sequence[Reward], given: Mapping[str, Sequence[float]] | None
) -> list[tuple[float, float]]:
    """Mean and deviation of each member.

    Raises:
        RequestError: members of several kinds have none, or one is no pair of numbers.
    """
    if given is None:
        kinds = {type(member) for member in members}
        if len(kinds) > 1 or kinds & {FunctionReward, ProxyReward} or isinstance(members[0], AsksServer):
            raise RequestError(
                "The members of the ensemble are of several kinds, and their scores in several units. Give the mean "
                "and the deviation of each over images of your prompts, in a YAML file: reward_options: {ensemble: "
                f"{{units: {{{names[0]}: [0.27, 0.03], ...}}}}}}. dipp score --json has the score of every image."
            )
        return [(0.0, 1.0)] * len(names)
    units = []
    for name in names:
        pair = given.get(name)
        numbers = [float(value) for value in pair if _is_number(value)] if isinstance(pair, Sequence) else []
        if len(numbers) != 2 or numbers[1] <= 0:
            raise RequestError(
                f"The units of the ensemble's member '{name}' are {quoted(pair)}; expected its mean and its "
                "deviation, as in [0.27, 0.03]."
            )
        units.append((numbers[0], numbers[1]))
    return units


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
