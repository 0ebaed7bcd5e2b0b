"""Rewards that are named on a command line: parsed, loaded with their options, and closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dipp_toolkit.errors import DippError, RequestError


def reward_names(text: str) -> list[str]:
    """The rewards that `--reward` names.

    Raises:
        RequestError: no reward is named, or one twice, with a weight, or by an unknown name.
    """
    from dipp_toolkit.training.setup.name_checks import check_rewards
    from dipp_toolkit.utils.assignments import parse_rewards, split_weight

    names = list(parse_rewards(text))
    weighted = [part.strip() for part in text.split(",") if part.strip() not in names and part.strip()]
    if weighted:
        name = split_weight(weighted[0])[0]
        raise RequestError(
            f"--reward {weighted[0]} gives a weight, but scores are not added up: write --reward {name} alone."
        )
    if not names:
        raise RequestError("No reward is named; expected names, as in --reward hps,imagereward.")
    check_rewards(names)
    return names


def load_rewards(names: Sequence[str], assignments: list[str]) -> dict[str, Any]:
    """Rewards by name, with the options that `--set` gives them.

    Raises:
        RequestError: one cannot be loaded, or an assignment is not an option of one of them.
    """
    from dipp_toolkit.rewards.loading import load_reward
    from dipp_toolkit.utils.assignments import parse_assignments
    from dipp_toolkit.utils.exception_text import raised

    assigned = parse_assignments(assignments)
    options = assigned.pop("reward_options", {})
    for setting in assigned:
        raise RequestError(f"--set {setting} is not an option of a reward; expected reward.NAME.OPTION=VALUE.")
    for name in options:
        if name not in names:
            raise RequestError(f"Options are given for the reward '{name}', which is not used here.")
    rewards: dict[str, Any] = {}
    try:
        for name in names:
            rewards[name] = load_reward(name, **options.get(name, {}))
    except DippError:
        close(rewards)
        raise
    except Exception as error:  # a reward's own code may raise anything while it loads
        close(rewards)
        raise RequestError(f"The reward '{name}' cannot be loaded: {raised(error)}.") from error
    return rewards


def close(rewards: Mapping[str, Any]) -> None:
    """End the processes and connections of rewards in other processes and on other machines."""
    from dipp_toolkit import protocols

    for reward in rewards.values():
        protocols.close(reward)
