"""From the settings a user gives to complete ones: recommended values filled in, names checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...config import TrainConfig, make_config
from ...diffusion.times import find_sampling, find_weighting
from ...distributed import Processes
from ...distributed.group import launcher_settings
from ...errors import RequestError
from ...models.files.saved_generators import split_saved
from ...models.generator_options import generator_options, pipeline_of_reference
from ...models.guidance_embedding import saved_guidance
from ...models.published import check_guidance
from ...models.stock_steps import saved_stepping
from ...monitoring.interval import LOOKS, usual_looks
from ...monitoring.monitors import check_monitors
from ...objective.build import check_term, why_no_budget, why_no_pull, why_nothing_learned
from ...objective.estimators.latent import why_not_latent
from ...planning.compile_choice import CompileChoice, choose_compile
from ...planning.recipes.recipe import recipe_settings
from ...registry import get_registry
from ...rewards.facts import facts_of
from ...utils.assignments import is_isolated_name, is_remote_name, read_yaml
from ...utils.imports import is_python_name
from ...utils.messages import shown
from ...utils.paths import looks_like_path, user_path
from ...utils.piecewise_linear import PiecewiseLinear
from ...utils.precision import PrecisionChoice, choose_precision
from ...utils.setting_layers import merge, over
from ..run_state.start_settings import settled
from .assistant_start import check_assistant_times, usual_warm_up
from .name_checks import check_names

FROM_RUN = (
    "reference", "prompts", "eval_prompts", "judge", "guidance", "reference_guidance", "reference_steps",
    "generator_steps", "step_noise", "generator_times", "guidance_embedding", "resolution", "aspects",
)  # fmt: skip
"""Settings that carry over from a run folder named as the generator, the guidance as it was at the end. Precision does
not: it depends on the machine."""

WARM_UP = ("assistant_warmup", "assistant_rounds")
"""Settings whose usual values depend on more than a name; a run that resumes keeps its own."""

NAMES_FROM_RUN = ("reference", "prompts", "eval_prompts", "judge")


def _recommended(config: TrainConfig) -> Mapping[str, Any]:
    """Settings that come with the generator, or, for a distillation, with the reference.

    Raises:
        RequestError: neither is named.
    """
    kind, name = ("reference", config.reference) if config.generator is None else ("generator", config.generator)
    if name is None:
        raise RequestError("Name a generator to train with --generator, or a reference to distil with --reference.")
    own, place = split_saved(name) if kind == "generator" else (name, None)
    entry = get_registry().entries[kind].get(own)
    if entry is None and kind == "generator":
        entry = pipeline_of_reference(name, generator_options(config))
    recommended = dict(entry.defaults) if entry is not None else {}
    if place is None and (entry is not None or is_python_name(name)):
        return recommended
    where = name if place is None else place
    for folder in (user_path(where), user_path(where).parent):
        if looks_like_path(where) and (folder / "config.yaml").is_file():
            return recommended | _of_run(folder / "config.yaml", config)
    saved = {**saved_stepping(where), "guidance_embedding": saved_guidance(where)}
    return recommended | {name: value for name, value in saved.items() if value is not None and kind == "generator"}


def _of_run(path: Path, config: TrainConfig) -> dict[str, Any]:
    """What carries over from the run whose folder is named.

    Raises:
        RequestError: a value is code or an address that the user did not name in this command.
    """
    earlier = make_config(read_yaml(path))
    for field in NAMES_FROM_RUN:
        name = getattr(earlier, field)
        code = name is not None and (is_python_name(name) or is_remote_name(name) or is_isolated_name(name))
        if code and field not in config.model_fields_set:
            raise RequestError(
                f"{path} names {shown(name)} as its {field}, and code or addresses named in a generator's folder are "
                f"not used. If you trust it, pass --set {field}={shown(name)}; otherwise name another, or none with "
                f"--set {field}=null."
            )
    return {field: getattr(earlier, field) for field in FROM_RUN} | {"guidance": earlier.guidance_at(earlier.steps - 1)}


def _of_several_steps(values: Mapping[str, Any], only_recommended: Collection[str]) -> dict[str, Any]:
    """The settings, without recommendations that do not fit the steps that are asked for."""
    found = dict(values)
    steps, times = found.get("generator_steps", 1), found.get("generator_times", "even")
    if "generator_times" in only_recommended and not isinstance(times, str) and len(times) != steps:
        found["generator_times"] = times = "even"  # they are recommended for another number of steps
    if steps == 1:
        return found
    if "input_scale" in only_recommended and found.get("step_noise", "fresh") == "fresh":
        found["input_scale"] = "unit"  # it is recommended for one step; of several, the first one starts from z
    if "readout" in only_recommended and times != "even":
        del found["readout"]  # where one step is read; of several, the times say it
    return found


def with_recommended(config: TrainConfig) -> TrainConfig:
    """The settings; those that the user did not give come from the launcher, the recipe or recommendations.

    Raises:
        RequestError: neither a generator nor a reference is named, or there is no such recipe.
    """
    given = {name: getattr(config, name) for name in config.model_fields_set}
    with_recipe = merge(recipe_settings(config), given)
    recommended = dict(_recommended(make_config(with_recipe)))
    if not recommended.keys() & LOOKS:
        names = {name: recommended.get(name) for name in ("generator", "reference")} | with_recipe
        recommended |= usual_looks(names["generator"], names["reference"])
    if config.resume and config.out is not None:
        recommended |= settled(user_path(config.out), {*recommended, *WARM_UP})
    launcher = {name: value for name, value in launcher_settings().items() if name not in given}
    values = over(recommended, with_recipe) | launcher
    values = _of_several_steps(values, {name for name in recommended if name not in with_recipe})
    resolved = make_config(values)
    if "assistant_warmup" in values:
        return resolved
    learns = resolved.assistant_model is None  # one of a user's own knows by itself what it needs
    updates = usual_warm_up(resolved.generator, resolved.reference, resolved.steps) if learns else 0
    return make_config(values | {"assistant_warmup": updates})


def _with_possible_scale(given: TrainConfig, resolved: TrainConfig) -> TrainConfig:
    """The settings; where measuring the scale is only a recommendation and the terms have no pull, it becomes 1.

    Raises:
        RequestError: the terms have no pull, and the user asked for one.
    """
    if not resolved.measures_pull or not (resolved.rewards or resolved.floors):
        return resolved
    reason = why_no_pull(resolved.terms)
    if not reason:
        return resolved
    if "reward_scale" in given.model_fields_set:
        raise RequestError(reason)
    return resolved.model_copy(update={"reward_scale": 1.0})


def _check_scaled_rewards(config: TrainConfig) -> None:
    """Refuse settings that scale rewards where there is nothing to scale, and a KL budget that nothing measures.

    Raises:
        RequestError: one of them is set.
    """
    for setting in ("kl_budget", "scale_schedule"):
        if getattr(config, setting) is None:
            continue
        if not any(config.largest_weights.values()):
            raise RequestError(
                f"The setting {setting} changes the scale of the rewards, and this run has no rewards. Leave it out, "
                "or train with rewards, as in dipp train --reward hps."
            )
        if not config.alpha_rew:
            raise RequestError(
                f"The setting {setting} multiplies the rewards' scale, and reward_scale is 0. Leave {setting} out, or "
                "pass --set pull=0.7."
            )
    if config.kl_budget is not None:
        reason = why_no_budget(config.terms)
        if reason:
            raise RequestError(reason)


def _check_rewards_for(config: TrainConfig) -> None:
    """Rewards of some prompts are among all rewards.

    Raises:
        RequestError: one is not.
    """
    for key, weights in config.reward_for.items():
        for name in weights.keys() - config.rewards.keys():
            raise RequestError(
                f"reward_for gives the prompts of {key} the reward '{name}', which the run does not have. Add it "
                f"to the rewards with the weight that it has for all other prompts: {name}=0 for none."
            )


def _check_latent_rewards(config: TrainConfig) -> None:
    """Refuse `latent` where the true reward is needed in every step, and where there is no gradient to learn.

    Raises:
        RequestError: a reward has it that is not trained on, is held above a floor, has no gradient, or is asked for
            scores alone.
    """
    reason = why_nothing_learned(config.terms) if config.latent_rewards else ""
    if reason:
        raise RequestError(reason)
    for name in config.latent_rewards:
        if name in config.floors:
            raise RequestError(
                f"The reward '{name}' has a floor, which needs its true score in every step, and latent=true leaves "
                "that out of most. Leave one of them out."
            )
        if name not in config.rewards:
            raise RequestError(
                f"The option latent of the reward '{name}' works in training, and this run does not train on it. "
                "Leave it out."
            )
        if facts_of(name).differentiable is False:
            raise RequestError(why_not_latent(name))


def _check_guidance(config: TrainConfig) -> None:
    """Refuse guidance for a reference that takes none.

    Raises:
        RequestError: as `check_guidance`.
    """
    found, reference = config.guidance_by_step, config.reference or ""
    if isinstance(found, PiecewiseLinear):
        check_guidance(reference, max(value for _, value in found.points), "guidance_schedule")
    else:
        check_guidance(reference, found, "guidance")
    check_guidance(reference, config.reference_guidance or 1.0, "reference_guidance")


def resolve(config: TrainConfig) -> TrainConfig:
    """Fill every setting the user did not give from those recommended with the generator or reference.

    Loads nothing heavy.

    Raises:
        RequestError: the reference or the prompts are missing, a name does not exist, or settings contradict.
    """
    check_names(config)
    resolved = with_recommended(config)
    check_names(resolved)
    if resolved.reference is None:
        raise RequestError(f"Name the reference of '{resolved.generator}' with --reference.")
    if resolved.prompts is None:
        raise RequestError("Name the prompts to train on with --prompts: a prompt set or a text file.")
    if not resolved.terms:
        raise RequestError("Name a term of the objective, for example with --set term=integral_kl.")
    for name in resolved.term_options.keys() - resolved.terms.keys():
        raise RequestError(f"Options were set for the term '{name}', which this run does not use.")
    for name in resolved.terms:
        check_term(name, resolved)
    resolved = _with_possible_scale(config, resolved)
    _check_scaled_rewards(resolved)
    _check_rewards_for(resolved)
    if resolved.reuse_samples and not resolved.assistant_rounds:
        raise RequestError(
            "The setting reuse_samples gives the assistant's last update the samples of the generator update before, "
            "and with assistant_rounds 0 there is no such update. Leave reuse_samples out, or set assistant_rounds=1."
        )
    find_weighting(resolved.weighting)
    find_sampling(resolved.time_sampling, *resolved.time_range)
    check_assistant_times(resolved)
    for name in resolved.reward_options:
        if name not in {*resolved.rewards, *resolved.floors, resolved.judge, *resolved.monitor_rewards}:
            raise RequestError(f"Options were set for the reward '{name}', which this run does not use.")
    _check_latent_rewards(resolved)
    if resolved.judge in {*resolved.rewards, *resolved.floors}:
        raise RequestError(
            f"The judge '{resolved.judge}' is also trained on, so it cannot judge the result. "
            "Name another with --judge."
        )
    check_monitors(resolved)
    _check_guidance(resolved)
    return resolved


def settle_precision(
    config: TrainConfig, device: torch.device, processes: Processes, why: str = "as asked"
) -> tuple[TrainConfig, PrecisionChoice]:
    """The settings with a precision that is not `auto`, and why; the same in all processes.

    Args:
        config: resolved settings.
        device: where the passes run.
        processes: those that share the run; the first one's machine decides.
        why: what is said of a precision that is named.
    """
    choice = choose_precision(config.precision, device, why)
    if not processes.alone:
        choice = PrecisionChoice(**processes.first_says(asdict(choice)))
    return config.model_copy(update={"precision": choice.name}), choice


def settle_compile(
    config: TrainConfig, device: torch.device, processes: Processes, why: str = "as asked"
) -> tuple[TrainConfig, CompileChoice]:
    """The settings with a `compile` that is not `auto`, and why; the same in all processes.

    Args:
        config: resolved settings, the precision included.
        device: where the passes run.
        processes: those that share the run; the first one's machine decides.
        why: what is said of a choice that is named.
    """
    choice = choose_compile(config, device, why)
    if not processes.alone:
        choice = CompileChoice(**processes.first_says(asdict(choice)))
    return config.model_copy(update={"compile": choice.name}), choice
