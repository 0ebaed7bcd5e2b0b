"""`train`: a run from names or objects, with settings as keywords, a `TrainConfig` or a YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import TrainConfig, make_config
from ..distributed import Processes
from ..errors import RequestError
from ..training.run import train as run
from ..training.run_result import RunResult
from ..training.run_state.run_folder import choose_folder, no_run, settings_for_a_new_run
from ..training.run_state.start_settings import read_begun_settings
from ..utils.paths import user_path
from ..utils.python_words import python_words
from ..utils.setting_layers import merge
from .parts import GivenParts
from .progress import ProgressBar, is_watched


def train(
    config: TrainConfig | str | Path | None = None,
    *,
    generator: Any = None,
    reference: Any = None,
    rewards: Any = None,
    prompts: Any = None,
    eval_prompts: Any = None,
    judge: Any = None,
    listeners: Sequence[object] = (),
    processes: Processes | None = None,
    progress: bool = True,
    **settings: Any,
) -> RunResult:
    """Train a generator: `train(generator=..., reference=..., rewards=[...], prompts=[...], steps=100)`.

    Every part is a name, as on the command line, or an object. What is given as an object is not changed: generators
    and references are copied. Names bring settings that their plugins recommend; objects bring none.

        >>> result = train(generator="emoji-onestep", rewards=[lambda images: images[:, 2].mean((1, 2))], steps=2)

    Args:
        config: settings, or a YAML file of them; the keywords stand above it.
        generator: to train: a name, a folder or a hub id, a `diffusers` pipeline, a finished `RunResult`, or an object
            such as `own_generator` makes. Without one, training starts from the reference's network.
        reference: the frozen multi-step diffusion: the same, or what `own_reference` makes.
        rewards: one or a list, each a name or a callable of `(images, prompts)` or of `(images)` alone; or weights by
            name or by callable: `{"hps": 1.0, sharpness: 0.2}`; or callables by the name that the run is to call them
            by, with or without a weight: `{"sharp": (sharpness, 0.2)}`. Images are float32 in [0, 1],
            `(batch, 3, height, width)`; scores `(batch,)`, higher is better.
        prompts: a name, a path, a list of texts, a `datasets.Dataset`, or what `load_prompts` returns.
        eval_prompts: of the comparison before and after; the same.
        judge: a reward that only judges.
        listeners: objects with any of the methods `dipp_on_run_start`, `dipp_on_warm_up`, `dipp_on_step`,
            `dipp_on_monitor`, `dipp_on_checkpoint` and `dipp_on_run_end`. Of several processes, only the first one's
            hear anything.
        processes: those that share the run; all that a launcher started where None.
        progress: show a bar, in a notebook or a terminal.
        settings: any other setting, by its name in docs/reference/settings.md. With `resume=True` and `out`, the run in
            that folder goes on with its own settings, and with the same objects given again.

    Returns:
        The run's folder with everything in it; `RunResult` shows before and after in a notebook.

    Raises:
        RequestError: something given cannot be used; nothing has been written then.
        RunError: the run failed; its last checkpoint, where there is one, is whole.
        Interrupted: a `KeyboardInterrupt`: SIGINT, SIGTERM or SIGHUP arrived; the run is saved.
    """
    parts = {
        "generator": generator, "reference": reference, "rewards": rewards, "prompts": prompts,
        "eval_prompts": eval_prompts, "judge": judge,
    }  # fmt: skip
    given = {name: value for name, value in parts.items() if value is not None}
    objects = GivenParts()
    with python_words():
        values = named(objects, {**settings, **given})
        with objects.lent():
            chosen = gathered(config, values)
            bar = ProgressBar() if progress and is_watched() else nullcontext()
            with bar as listener:
                heard = [*listeners, *([listener] if listener is not None else [])]
                result = run(chosen, listeners=heard, processes=processes)
        return replace(result, given={part.kind: part.thing for part in objects.parts if part.copied})


def named(objects: GivenParts, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which every part is a name.

    Args:
        objects: takes those that are none.
        values: by setting.

    Raises:
        RequestError: one cannot be used as its part.
    """
    turn = {
        "generator": objects.generator,
        "reference": objects.reference,
        "rewards": objects.rewards,
        "floors": objects.by_reward,
        "judge": objects.reward,
        "monitor_rewards": objects.rewards_named,
        "prompts": objects.prompts,
        "eval_prompts": lambda prompts: objects.prompts(prompts, "eval_prompts"),
    }
    # In the order above: a judge that is trained on as well is the same reward.
    first = {name: turn[name](values[name]) for name in turn if values.get(name) is not None}
    return {name: first.get(name, value) for name, value in values.items()}


def gathered(config: TrainConfig | str | Path | None, values: Mapping[str, Any]) -> TrainConfig:
    """One set of settings: a config's or a file's, or those of the run that resumes, under the keywords.

    Raises:
        RequestError: a name is unknown, a value is out of range, or a file cannot be used.
        CheckpointError: there is no run to resume.
    """
    if isinstance(config, TrainConfig):
        return config.replace(**values)
    if config is not None and not isinstance(config, str | Path):
        raise RequestError(
            f"The first argument of train is a {type(config).__name__}; expected a TrainConfig or the path of a YAML "
            "file. Give everything else by keyword, as in train(generator=..., steps=100)."
        )
    below = settings_for_a_new_run(user_path(config)) if config is not None else {}
    if values.get("resume"):
        folder = choose_folder(make_config({**merge(below, values), "resume": True})).path
        if not (folder / "config.yaml").is_file():
            raise no_run(folder)
        below = read_begun_settings(folder / "config.yaml")
    return make_config(merge(below, values))
