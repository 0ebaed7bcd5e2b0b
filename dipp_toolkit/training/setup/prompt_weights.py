"""Which weight a reward has for which prompt: the setting `reward_for`, read with the categories of the prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...config import TrainConfig
from ...errors import RequestError
from ...objective.terms.for_prompts import PromptWeights
from ...protocols import Prompt
from ...utils.messages import shown, unknown_name

CATEGORY = "category="


def prompt_weights(config: TrainConfig, prompts: Iterable[Prompt]) -> dict[str, PromptWeights]:
    """The weights of the rewards that `reward_for` names, by reward.

    Of a prompt that stands in several of the categories, the last that names the reward counts.

    Args:
        config: the run's settings.
        prompts: those it trains on, with their categories; read once.

    Raises:
        RequestError: a category is not in the prompt set, a reward is raised for some prompts and lowered for others,
            or has a floor or a stand-in that knows no prompts.
    """
    if not config.reward_for:
        return {}
    asked = {key.removeprefix(CATEGORY): weights for key, weights in config.reward_for.items()}
    found: dict[str, list[str]] = {category: [] for category in asked}
    others: dict[str, None] = {}
    for prompt in prompts:
        if prompt.category in found:
            found[prompt.category].append(prompt.text)
        else:
            others[prompt.category] = None
    for category, texts in found.items():
        if not texts:
            known = [other for other in others if other]
            if not known:
                raise RequestError(
                    f"reward_for names the category '{shown(category)}', and the prompts have no categories. Prompt "
                    "files have them in a column or field 'category'."
                )
            raise RequestError(unknown_name("category of the prompts", category, [*known, *filter(found.get, found)]))
    return {
        reward: _weights(config, reward, asked, found)
        for reward in dict.fromkeys(reward for weights in asked.values() for reward in weights)
    }


def _weights(
    config: TrainConfig, reward: str, asked: Mapping[str, Mapping[str, float]], found: Mapping[str, list[str]]
) -> PromptWeights:
    for setting, names in (("a floor", config.floors), ("latent=true", config.latent_rewards)):
        if reward in names:
            raise RequestError(
                f"The reward '{reward}' has {setting} and a weight that depends on the prompt (reward_for), which do "
                "not go together. Leave one out."
            )
    weights = [config.rewards[reward], *(own[reward] for own in asked.values() if reward in own)]
    if min(weights) < 0 < max(weights):
        given = ", ".join(f"{weight:g}" for weight in weights)
        raise RequestError(
            f"The reward '{reward}' is raised for some prompts and lowered for others ({given}); give its weights one "
            "sign, 0 for prompts where it is not to count."
        )
    largest = max(weights, key=abs)
    scale = largest or 1.0
    shares = {text: own[reward] / scale for category, own in asked.items() if reward in own for text in found[category]}
    return PromptWeights(largest, shares, config.rewards[reward] / scale)
