"""The model card of an exported generator: what it is, how to call it, what it was trained on and what it reached."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..models.family import CallArguments, EmbeddedGuidance
from ..models.files.folders import family_of, read_scheduler_config
from ..models.files.safety import stock_pipeline
from ..models.stock_schedulers import recorded_steps
from ..planning.recipes.layer import recipe_text
from ..utils.atomic import write_text
from ..utils.json_files import read_json
from ..utils.licences import Origin
from .setup.origins import origins_of, start_origins

LINE = 88
HEAD = "| reward | before (95 % interval) | after |"
TOLD = (
    "reference", "rewards", "reward_scale", "pull", "guidance", "term", "steps", "batch_size", "learning_rate", "mode",
    "precision", "seed",
)  # fmt: skip


def card_text(folder: Path, config: TrainConfig, summary: Mapping[str, Any]) -> str:
    """The card as Markdown with a YAML header that the hub reads.

    Args:
        folder: the exported pipeline.
        config: the run's settings.
        summary: the run's numbers, as in `summary.json`.
    """
    from huggingface_hub import ModelCardData

    steps = recorded_steps(read_scheduler_config(folder))
    kind = "one-step" if steps == 1 else f"{steps}-step"
    evaluations = "one network evaluation" if steps == 1 else f"{steps} network evaluations"
    made_from, trained_against = start_origins(config), origins_of("reference", config.reference or "")
    hubs = list(dict.fromkeys(origin.hub for origin in (*made_from, *trained_against) if origin.hub))
    licence: dict[str, Any] = made_from[0].licence.card_fields if made_from else {}
    data = ModelCardData(
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["one-step" if steps == 1 else "few-step", "diff-instruct", "dipp-toolkit"],
        base_model=hubs or None,
        **licence,
    )
    rows = [
        f"| {name} | {one['before']['mean']:.4g} [{one['before']['low']:.4g}, {one['before']['high']:.4g}] | "
        f"{one['after']['mean']:.4g} [{one['after']['low']:.4g}, {one['after']['high']:.4g}] |"
        for name, one in {**summary.get("rewards", {}), **_judge(summary)}.items()
    ]
    loading = _call_text("path/to/this/folder", load_arguments(folder))
    told = {name: getattr(config, name) for name in TOLD if name != "pull" or config.measures_pull}
    return "\n".join(
        [
            "---", data.to_yaml().strip(), "---", "",
            f"# A {kind} text-to-image generator", "",
            "Trained by [dipp-toolkit](https://arxiv.org/abs/2410.18881) (Diff-Instruct++) against a frozen reference "
            f"diffusion. It takes {evaluations} an image and loads in plain diffusers:", "",
            "```python", "from diffusers import DiffusionPipeline", "",
            f"pipeline = DiffusionPipeline.from_pretrained({loading})",
            f"image = pipeline({_call_text('a prompt', call_arguments(folder, steps))}).images[0]",
            "```", "",
            "Guidance is built in: another `guidance_scale` gives another image than the generator's own.", "",
            *(["## Rewards", "", HEAD, "|---|---|---|", *rows, ""] if rows else []),
            *_licences(made_from, trained_against),
            "## Settings", "", *_recipe(config), "```json", json.dumps(told, indent=2), "```", "",
        ]
    )  # fmt: skip


def call_arguments(folder: Path, steps: int) -> dict[str, Any]:
    """What the stock pipeline is called with besides a prompt, so that it makes the generator's own image.

    Args:
        folder: the exported pipeline.
        steps: that the generator takes.

    Raises:
        RequestError: the folder's configurations cannot be read.
    """
    family = family_of(folder)
    network, vae = (read_json(folder / name / "config.json") for name in (family.network_name, "vae"))
    return {
        "num_inference_steps": steps,
        "guidance_scale": float(family.embedded_guidance) if isinstance(family, EmbeddedGuidance) else 1.0,
        **(family.call_arguments(network, vae) if isinstance(family, CallArguments) else {}),
    }


def load_arguments(folder: Path) -> dict[str, None]:
    """What the stock class is told as it loads the folder: the components that it has not, where it would miss them.

    Args:
        folder: the exported pipeline.
    """
    index = read_json(folder / "model_index.json")
    optional = getattr(stock_pipeline(index), "_optional_components", ())
    lacking = (name for name, entry in index.items() if isinstance(entry, list) and entry and not entry[0])
    return {name: None for name in lacking if name not in optional}


def _call_text(first: str, arguments: Mapping[str, Any]) -> str:
    """The words of a call: on one line where it is short, and else one a line."""
    words = [f'"{first}"', *(f"{name}={value!r}" for name, value in arguments.items())]
    line = ", ".join(words)
    return line if len(line) <= LINE else "\n    " + ",\n    ".join(words) + ",\n"


def _recipe(config: TrainConfig) -> list[str]:
    """The line that names the run's recipe and its source."""
    text = recipe_text(config)
    return [f"Begun from the recipe {text}; what differs from it is in the run's `config.yaml`.", ""] if text else []


def _licences(made_from: Sequence[Origin], trained_against: Sequence[Origin]) -> list[str]:
    """The lines that say whose weights these come from, and on which terms."""
    lines = [
        f"- {what} {_linked(origin)}: {origin.licence.text}."
        for what, origins in (("started from", made_from), ("trained against", trained_against))
        for origin in origins
    ]
    heading = "The licences of the weights that these were made from apply to them."
    return ["## Licence", "", heading, "", *dict.fromkeys(lines), ""] if lines else []


def _linked(origin: Origin) -> str:
    return f"[{origin.hub}]({origin.page})" if origin.hub else "weights without a repository"


def _judge(summary: Mapping[str, Any]) -> dict[str, Any]:
    judge = summary.get("judge")
    return {f"{judge['name']} (judge, not trained on)": judge} if judge else {}


def write_model_card(folder: Path, config: TrainConfig, summary: Mapping[str, Any]) -> None:
    """Write the card as the pipeline folder's README.md."""
    write_text(folder / "README.md", card_text(folder, config, summary))
