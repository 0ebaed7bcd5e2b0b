"""Options that several commands share, as annotated types. An option left out is None: the toolkit has the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

RESUME, AUTO, ALWAYS = "--resume", "auto", "always"
"""An option whose value may be left out, and its values: the first is typed, the second is what it says alone."""

Generator = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FOLDER",
        help="Generator: a registered name, a pipeline or run folder, a hub id, file.py:Name or NAME@folder.",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FOLDER", help="Frozen multi-step diffusion: a name, a pipeline folder, a hub id or file.py:Name."
    ),
]
Rewards = Annotated[
    str | None,
    typer.Option(
        "--reward", metavar="NAME[=WEIGHT],...", help="Rewards and weights: hps=2,imagereward or ./mine.py:blue."
    ),
]
Balance = Annotated[
    str | None,
    typer.Option(metavar="sum|normalised|pcgrad|mgda", help="How rewards that disagree are joined."),
]
Floors = Annotated[
    str | None,
    typer.Option(
        "--floor", metavar="NAME=LEVEL,...", help="Hold these rewards above a level while the others are maximised."
    ),
]
RewardScale = Annotated[
    str | None,
    typer.Option(
        metavar="SCALE",
        help="What every reward's weight is multiplied by; auto measures what gives the rewards their --pull.",
    ),
]
Pull = Annotated[
    float | None,
    typer.Option(
        metavar="RATIO",
        help="How strongly the rewards pull, as a share of the divergence's pull: measured over the first updates, "
        "then held; 0.7 where the scale is auto.",
    ),
]
KLBudget = Annotated[
    float | None,
    typer.Option(
        "--kl-budget",
        metavar="NATS",
        help="Move the rewards' scale so that the generator stays this far from the reference, in nats a dimension.",
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(metavar="SCALE", help="Classifier-free guidance that the generator is trained to; 1 for none."),
]
Term = Annotated[
    str | None,
    typer.Option(metavar="NAME[=WEIGHT],...", help="Divergence to the reference: integral_kl, or ./mine.py:Term."),
]
Judge = Annotated[str | None, typer.Option(metavar="NAME", help="Reward that only judges and is never trained on.")]
Prompts = Annotated[
    str | None, typer.Option(metavar="SET|FILE", help="Prompt set, a file of prompts, or file.py:NAME.")
]
Steps = Annotated[int | None, typer.Option(metavar="N", help="Generator updates.")]
BatchSize = Annotated[int | None, typer.Option(metavar="N", help="Samples a generator update.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Random seed; the same seed gives the same bits.")]
Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Run folder; a fresh one below runs/ by default.")]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="[auto]",
        help="Go on with the run in the --out folder; 'auto' begins a new one where there is nothing to go on with.",
    ),
]
Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="YAML file of settings; flags and --set go before it.")
]
Recipe = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Published training to begin from, see dipp recipes; all else goes before it."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any setting by name: learning_rate=2e-5, reward.hps.version=v2.1. Repeatable.",
    ),
]
Track = Annotated[str | None, typer.Option(metavar="NAME,...", help="Trackers to log to: tensorboard, wandb, trackio.")]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")]
Precision = Annotated[
    str | None, typer.Option(metavar="NAME", help="auto, fp32, bf16 or fp16; auto is bf16 where it is fast.")
]
PushToHub = Annotated[
    str | None,
    typer.Option(metavar="OWNER/NAME", help="Upload the finished generator to this repository of the hub."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, to stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="A plain line now and then instead of a progress bar.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check all short of fetching or loading weights, say what would be done, write nothing.",
    ),
]
Mode = Annotated[
    str | None,
    typer.Option(
        metavar="full|lora", help="Train all weights, or adapters over one shared set.", rich_help_panel="Memory"
    ),
]
RewardResolution = Annotated[
    int | None,
    typer.Option(metavar="PIXELS", help="Side of the images decoded for rewards.", rich_help_panel="Memory"),
]
RecomputeGenerator = Annotated[
    bool | None,
    typer.Option(
        "--recompute-generator", help="Run the generator again for its backward pass.", rich_help_panel="Memory"
    ),
]
GradientCheckpointing = Annotated[
    bool | None,
    typer.Option("--gradient-checkpointing", help="Recompute blocks in the backward pass.", rich_help_panel="Memory"),
]
ChannelsLast = Annotated[
    bool | None,
    typer.Option("--channels-last", help="Channels-last convolution weights.", rich_help_panel="Memory"),
]
Compile = Annotated[
    bool | None, typer.Option("--compile", help="torch.compile the networks.", rich_help_panel="Memory")
]
Optimizer = Annotated[
    str | None,
    typer.Option(metavar="adam|fused|8bit", help="Adam, its fused kernel, or 8-bit states.", rich_help_panel="Memory"),
]


class ResumableCommand(TyperCommand):
    """A command whose `--resume` stands alone or is followed by `auto`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--resume` its value, then parse as usual."""
        spelled = []
        for index, word in enumerate(args):
            bare = word == RESUME and (args[index + 1 : index + 2] or [""])[0] not in (AUTO, ALWAYS)
            spelled.append(f"{RESUME}={ALWAYS}" if bare else word)
        return super().parse_args(ctx, spelled)
