r"""Rewards of all images of a prompt at once: what a group is, and how a batch is cut without cutting one.

A group is the images of one prompt in one call. A `GroupReward` gives each a score that depends on the others: where it
stands among them, how far it is from them. Within a call it is a function of the set: the order does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..config import TrainConfig
from ..errors import RequestError
from ..protocols import GroupReward, Reward
from ..registry import get_registry
from ..utils.messages import quoted, shown


def samples_per_prompt(reward: Reward) -> int:
    """How many images of a prompt a reward is to be trained with: 1 where it looks at each by itself.

    Raises:
        RequestError: it says something that is not a number of images.
    """
    if not isinstance(reward, GroupReward):
        return 1
    said = reward.samples_per_prompt
    if isinstance(said, bool) or not isinstance(said, int) or said < 1:
        raise RequestError(f"The samples_per_prompt of a reward is {quoted(said)}; expected a whole number, 2 or more.")
    return said


def declared_samples(config: TrainConfig) -> dict[str, int]:
    """How many images of a prompt rewards compare, as far as options and registered classes say, by name."""
    entries = get_registry().entries["reward"]
    usual = {
        name: getattr(entries[name].find_factory(), "samples_per_prompt", None)
        for name in [*config.rewards, *config.floors]
        if name in entries and not entries[name].missing
    }
    said = {name: config.options_of(name).get("samples", own) for name, own in usual.items() if isinstance(own, int)}
    return {name: own for name, own in said.items() if isinstance(own, int)}


def refuse_alone(name: str, reward: Reward, where: str) -> None:
    """Refuse a reward of groups where images are scored one by one.

    Args:
        name: the reward's.
        reward: anybody's.
        where: what scores so, as the beginning of a sentence, such as `A bench`.

    Raises:
        RequestError: it looks at all images of a prompt.
    """
    if samples_per_prompt(reward) > 1:
        raise RequestError(
            f"{where} scores images one by one, and the reward '{name}' compares those of one prompt with each other. "
            "Name the reward that it is made of instead."
        )


def same_prompt(
    name: str, prompts: Sequence[str], device: torch.device | str | None = None
) -> Bool[Tensor, "batch batch"]:
    """Whether two images of a batch are of one prompt; none is its own neighbour.

    Args:
        name: the reward's, for the message.
        prompts: one an image.
        device: of the answer.

    Raises:
        RequestError: an image is the only one of its prompt.
    """
    number = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    keys = torch.tensor([number[prompt] for prompt in prompts])
    same = keys[:, None] == keys[None]
    same.fill_diagonal_(False)
    alone = (~same.any(1)).nonzero().flatten().tolist()
    if alone:
        raise RequestError(
            f"The reward '{name}' compares images of one prompt with each other, and '{shown(prompts[alone[0]])}' came "
            "with one image. Train with --set noises_per_prompt=4, or give it two images or more of each prompt."
        )
    return same.to(device)


def rows_of_prompts(prompts: Sequence[str]) -> list[list[int]]:
    """For each image of a batch the rows of the other images of its prompt."""
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    return [[other for other in rows[prompt] if other != row] for row, prompt in enumerate(prompts)]


def mean_over_others(
    values: Float[Tensor, "batch batch"], same: Bool[Tensor, "batch batch"]
) -> Float[Tensor, " batch"]:
    r"""$\frac{1}{K_i - 1} \sum_{j \sim i,\, j \ne i} v_{ij}$ over the $K_i$ images of the prompt of image i."""
    return torch.where(same, values, 0).sum(1) / same.sum(1)


def mean_of_group(values: Float[Tensor, " batch"], same: Bool[Tensor, "batch batch"]) -> Float[Tensor, " batch"]:
    r"""$\frac{1}{K_i} \sum_{j \sim i} v_j$ over all images of the prompt of image i, itself included."""
    return (torch.where(same, values[None], 0).sum(1) + values) / (same.sum(1) + 1)


def check_samples(name: str, samples: object) -> int:
    """An option that says how many images of a prompt a training's batches hold.

    Args:
        name: the reward's, for the message.
        samples: as given.

    Raises:
        RequestError: it is not a whole number from 2 on.
    """
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
        raise RequestError(
            f"The option samples of the reward '{name}' is {samples!r}; expected a whole number, 2 or more."
        )
    return samples


def whole_groups(prompts: Sequence[str], size: int) -> Iterator[slice]:
    """Parts of a batch in its order, each of `size` images or as few more as let no prompt be in two of them.

    Args:
        prompts: one an image; those of one prompt stand together.
        size: 1 or more.
    """
    start = 0
    while start < len(prompts):
        stop = min(start + size, len(prompts))
        while stop < len(prompts) and prompts[stop] == prompts[stop - 1]:
            stop += 1
        yield slice(start, stop)
        start = stop


def parts_of(reward: Reward, prompts: Sequence[str], size: int) -> Iterator[slice]:
    """Parts of a batch that a reward may be given one after the other, of `size` images or a few more.

    Args:
        reward: whose groups are not cut, if it looks at groups.
        prompts: one an image.
        size: 1 or more.
    """
    if samples_per_prompt(reward) > 1:
        yield from whole_groups(prompts, size)
        return
    for start in range(0, len(prompts), size):
        yield slice(start, min(start + size, len(prompts)))
