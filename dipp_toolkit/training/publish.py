"""Publishing a finished generator: its model card, and the upload to the Hugging Face hub."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..errors import RequestError, RunError, first_line
from ..models.family import CallArguments, PipelineFamily
from ..models.files.folders import family_of, read_scheduler_config
from ..models.files.safety import stock_pipeline
from ..models.guidance_embedding import told_guidance
from ..models.sizes import call_size, recorded_sizes
from ..models.stock_call import stock_call_of
from ..models.stock_schedulers import recorded_steps
from ..models.stock_steps import recorded_arguments
from ..planning.recipes.recipe import recipe_text
from ..utils.atomic import write_text
from ..utils.json_files import read_json
from ..utils.licences import Origin
from .setup.origins import origins_of, start_origins

EMBEDDED = "guidance_scale"
"""The argument of a pipeline's call that a network's own guidance input is given by."""
LINE = 88
"""Columns up to which a call in the card's snippet stands on one line."""
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
HEAD = "| reward | before (95 % interval) | after |"
SETTINGS = (
    "reference", "rewards", "reward_scale", "pull", "guidance", "term", "steps", "batch_size", "learning_rate", "mode",
    "precision", "seed",
)  # fmt: skip
"""Settings that the card lists."""
SIZES = ("resolution", "aspects")
"""Settings that it lists where a run has them."""


def card_text(folder: Path, config: TrainConfig, summary: Mapping[str, Any]) -> str:
    """The card as Markdown with a YAML header that the hub reads.

    Args:
        folder: the exported pipeline.
        config: the run's settings.
        summary: the run's numbers, as in `summary.json`.
    """
    from huggingface_hub import ModelCard, ModelCardData

    steps = recorded_steps(read_scheduler_config(folder))
    made_from, trained_against = start_origins(config), origins_of("reference", config.reference or "")
    hubs = list(dict.fromkeys(origin.hub for origin in (*made_from, *trained_against) if origin.hub))
    licence: dict[str, Any] = made_from[0].licence.card_fields if made_from else {}
    settings = {name: getattr(config, name) for name in SETTINGS if name != "pull" or config.measures_pull}
    settings |= {name: value for name in SIZES if (value := getattr(config, name))}
    card = ModelCard.from_template(
        ModelCardData(
            library_name="diffusers",
            pipeline_tag="text-to-image",
            tags=["one-step" if steps == 1 else "few-step", "diff-instruct", "dipp-toolkit"],
            base_model=hubs or None,
            **licence,
        ),
        template_path=str(TEMPLATE),
        kind="one-step" if steps == 1 else f"{steps}-step",
        evaluations="one network evaluation" if steps == 1 else f"{steps} network evaluations",
        load_call=_call_text("path/to/this/folder", load_arguments(folder)),
        sample_call=_call_text("a prompt", call_arguments(folder, steps), _prompt_argument(folder)),
        guidance=_guided(family_of(folder))[0],
        head=HEAD,
        scores=_score_rows(summary),
        licences=_licence_lines(made_from, trained_against),
        recipe=recipe_text(config),
        settings=json.dumps(settings, indent=2),
    )
    return f"{card.content.rstrip()}\n"


def call_arguments(folder: Path, steps: int, family: PipelineFamily | None = None) -> dict[str, Any]:
    """Arguments of the stock pipeline besides the prompt, so that it makes the generator's own image.

    Args:
        folder: the exported pipeline.
        steps: that the generator takes.
        family: in place of the folder's own, where a network is told another guidance than the folder records.

    Raises:
        RequestError: the folder's configurations cannot be read.
    """
    family = family or family_of(folder)
    network, vae = (read_json(folder / name / "config.json") for name in (family.network_name, "vae"))
    guidance, value = _guided(family)
    return {
        "num_inference_steps": steps,
        guidance: value,
        **recorded_arguments(read_scheduler_config(folder)),
        **(family.call_arguments(network, vae) if isinstance(family, CallArguments) else {}),
        **(call_size(folder, family, sizes[0]) if (sizes := recorded_sizes(folder, family)) else {}),
    }


def load_arguments(folder: Path) -> dict[str, None]:
    """Arguments that the stock class needs to load the folder: None for components it lacks and would require.

    Args:
        folder: the exported pipeline.
    """
    index = read_json(folder / "model_index.json")
    optional = getattr(stock_pipeline(index), "_optional_components", ())
    lacking = (name for name, entry in index.items() if isinstance(entry, list) and entry and not entry[0])
    return {name: None for name in lacking if name not in optional}


def _guided(family: PipelineFamily) -> tuple[str, float]:
    """The argument of the pipeline's call that says how its images are guided, and a generator's value of it."""
    embedded, call = told_guidance(family), stock_call_of(family)
    return (call.guidance_argument, call.stock_guidance(1.0)) if embedded is None else (EMBEDDED, embedded)


def _prompt_argument(folder: Path) -> str:
    """Before the prompt in the pipeline's call: nothing where it is the first argument, as of most."""
    pipeline = stock_pipeline(read_json(folder / "model_index.json"))
    _, first, *_ = inspect.signature(pipeline.__call__).parameters
    return "" if first == "prompt" else "prompt="


def _call_text(first: str, arguments: Mapping[str, Any], before: str = "") -> str:
    """Arguments of a call, on one line where it is short, and otherwise one a line."""
    words = [f'{before}"{first}"', *(f"{name}={value!r}" for name, value in arguments.items())]
    line = ", ".join(words)
    return line if len(line) <= LINE else "\n    " + ",\n    ".join(words) + ",\n"


def _licence_lines(made_from: Sequence[Origin], trained_against: Sequence[Origin]) -> list[str]:
    """Whose weights these come from, and on which terms, each once."""
    lines = [
        f"- {relation} {_linked(origin)}: {origin.licence.text}."
        for relation, origins in (("started from", made_from), ("trained against", trained_against))
        for origin in origins
    ]
    return list(dict.fromkeys(lines))


def _linked(origin: Origin) -> str:
    return f"[{origin.hub}]({origin.page})" if origin.hub else "weights without a repository"


def _score_rows(summary: Mapping[str, Any]) -> list[str]:
    """Table rows of the rewards, and of the judge, before and after."""
    rewards, judge = dict(summary.get("rewards", {})), summary.get("judge")
    if judge:
        rewards[f"{judge['name']} (judge, not trained on)"] = judge

    def cell(score: Mapping[str, float]) -> str:
        return f"{score['mean']:.4g} [{score['low']:.4g}, {score['high']:.4g}]"

    return [f"| {name} | {cell(scores['before'])} | {cell(scores['after'])} |" for name, scores in rewards.items()]


def write_model_card(folder: Path, config: TrainConfig, summary: Mapping[str, Any]) -> None:
    """Write the card as the pipeline folder's README.md."""
    write_text(folder / "README.md", card_text(folder, config, summary))


def check_repository(repository: str) -> None:
    """Refuse a name that no repository can have.

    Raises:
        RequestError: it is not of the form `owner/name`.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise RequestError(f"--push-to-hub {repository} is not a repository; expected owner/name.")


def check_hub(repository: str) -> None:
    """Refuse before the training what would make the upload fail after it.

    Raises:
        RequestError: the name is not `owner/name`, nobody is logged in, or the hub cannot be reached.
    """
    check_repository(repository)
    from huggingface_hub import HfApi

    try:
        HfApi().whoami()
    except Exception as error:  # the hub's client raises its own and its HTTP library's errors
        raise RequestError(
            f"Cannot upload to {repository}: {first_line(error)}. Run 'hf auth login' first, or leave "
            "--push-to-hub out and upload the folder final/ later."
        ) from error


def push_to_hub(folder: Path, repository: str) -> str:
    """Upload a pipeline folder; returns its address.

    Raises:
        RunError: the upload failed; the folder is whole on disk.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Generator by dipp-toolkit")
    except Exception as error:  # as above
        raise RunError(
            f"The run is done, but uploading to {repository} failed: {first_line(error)}. "
            f"Try again with: hf upload {repository} {folder}"
        ) from error
    return f"https://huggingface.co/{repository}"
