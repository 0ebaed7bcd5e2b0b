"""Flags that are made from the settings: none is lost, and what they say is what the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dipp_cli.build import build_command
from dipp_cli.setting_flags import FLAGS, Flag, flag_name
from dipp_toolkit import TrainConfig

FROM_THE_FIRST = {
    "train": (
        "--balance --batch-size --channels-last --compile --config --debug --device --dry-run --floor --generator "
        "--gradient-checkpointing --guidance --json --judge --kl-budget --mode --optimizer --out --precision "
        "--prompts --pull --push-to-hub --quiet --recipe --recompute-generator --reference --resume --reward "
        "--reward-for --reward-resolution --reward-scale --seed --set --steps --term --track -q"
    ),
    "distill": (
        "--batch-size --channels-last --compile --config --debug --device --dry-run --generator "
        "--gradient-checkpointing --guidance --json --judge --mode --optimizer --out --precision --prompts "
        "--push-to-hub --quiet --recipe --recompute-generator --reference --resume --seed --set --steps --term "
        "--track -q"
    ),
    "ablate": (
        "--batch-size --best --cells --config --count --debug --device --dry-run --generator --json --judge "
        "--measure --metrics --noises --out --prompts --quiet --reference --reward --seeds --set --steps "
        "--subject-to --vary -q"
    ),
    "plan": (
        "--batch --batch-size --config --debug --generator --json --memory --mode --precision --processes "
        "--recipe --reference --reward --set --sharding --utilisation"
    ),
    "accept": (
        "--check --debug --device --json --minutes --out --prompts --record-golden --reference --reward --set --skip"
    ),
}
"""The options that each of these commands had when they were written by hand, without --help."""
SINCE = {
    command: {"--resolution", "--aspects", "--generator-steps", "--step-noise", "--generator-times"}
    for command in ("train", "distill")
} | {"plan": {"--resolution", "--aspects", "--generator-steps"}}
"""Those that came later."""


def options(command: str) -> dict[str, Any]:
    """A command's options by every way they are typed."""
    parameters = build_command().commands[command].params
    return {name: parameter for parameter in parameters for name in parameter.opts if name.startswith("-")}


@pytest.mark.parametrize("command", FROM_THE_FIRST)
def test_every_flag_that_was_there_still_is(command: str) -> None:
    assert options(command).keys() == set(FROM_THE_FIRST[command].split()) | SINCE.get(command, set())


@pytest.mark.parametrize("setting", FLAGS)
def test_a_flag_says_what_its_setting_says(setting: str) -> None:
    made, field = options("train")[flag_name(setting)], TrainConfig.model_fields[setting]
    assert made.name == setting
    assert field.description is not None
    assert field.description[1:] in made.help
    assert made.default is None, "the toolkit has the defaults"
    assert made.is_flag == (field.annotation is bool)


@pytest.mark.parametrize(
    ("setting", "metavar", "ending"),
    [
        ("optimizer", "adam|fused|8bit", "8-bit states."),
        ("balance", "sum|normalised|pcgrad|mgda", "improves all."),
        ("steps", "N", "At least 1."),
        ("kl_budget", "NATS", "Above 0."),
        ("guidance", "SCALE", "At least 0."),
    ],
)
def test_choices_and_ranges_are_the_settings(setting: str, metavar: str, ending: str) -> None:
    made = options("train")[flag_name(setting)]
    assert made.metavar == metavar
    assert made.help.endswith(ending)


@pytest.mark.parametrize(
    ("setting", "flag", "word", "value"),
    [
        ("warmup", Flag(metavar="N"), ["--warmup", "3"], 3),
        ("ema", Flag(metavar="DECAY"), ["--ema", "0.5"], 0.5),
        ("deterministic", Flag(), ["--deterministic"], True),
        ("prompt_cache", Flag(metavar="FOLDER"), ["--prompt-cache", "there"], Path("there")),
        ("weighting", Flag(name="--weigh"), ["--weigh", "snr"], "snr"),
    ],
)
def test_a_row_is_all_that_a_new_flag_takes(
    setting: str, flag: Flag, word: list[str], value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FLAGS, setting, flag)
    given: list[Any] = []
    monkeypatch.setattr("dipp_cli.actions.settings.gather", lambda flags, *more: given.append(flags))
    monkeypatch.setattr("dipp_cli.actions.train.run", lambda *more: None)
    build_command().main(["train", *word], prog_name="dipp", standalone_mode=False)
    assert {name: value for name, value in given[0].items() if value is not None} == {setting: value}


def test_a_scale_is_a_number_or_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr("dipp_cli.actions.settings.gather", lambda flags, *more: given.append(flags["reward_scale"]))
    monkeypatch.setattr("dipp_cli.actions.train.run", lambda *more: None)
    for word in ("80", "auto"):
        build_command().main(["train", "--reward-scale", word], prog_name="dipp", standalone_mode=False)
    assert given == [80, "auto"]
