"""A run that will take long says so after its first steps, with what would make it shorter."""

from __future__ import annotations

from pathlib import Path

import pytest

from dipp_cli.setting_flags import FLAGS
from dipp_cli.terminal.long_run import LongRun, in_words
from dipp_cli.terminal.progress import PlainLines
from dipp_toolkit import TrainConfig
from dipp_toolkit.events import RunStartEvent, StepEvent
from dipp_toolkit.utils.precision import PrecisionChoice

EMULATED = PrecisionChoice("bf16", "as asked, though this CPU is slow at it (a layer takes 11 times as long)", 11.0)


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def notices(
    each: float,
    steps: int,
    *,
    first: float = 0.0,
    begun: int = 0,
    precision: PrecisionChoice | None = None,
    **more: int,
) -> dict[int, str]:
    """What is said, by step, of a run whose steps take `each` seconds."""
    clock, found = Clock(), {}
    watched = LongRun(clock)
    watched.begins(RunStartEvent(TrainConfig(steps=steps, **more), Path("run"), begun, precision))  # type: ignore[arg-type]
    for step in range(begun + 1, steps + 1):
        clock.seconds += each + first * (step == begun + 1)
        said = watched.after(StepEvent(step, steps, {}))
        if said:
            found[step] = said
    return found


def test_a_long_run_is_told_of_once_after_its_first_steps() -> None:
    assert notices(10.0, 234) == {
        6: "about 38 minutes; fewer steps with --steps, smaller steps with --batch-size",
    }


def test_a_short_run_says_nothing_and_neither_does_a_slow_first_step() -> None:
    assert notices(1.0, 250) == {}
    assert notices(1.0, 250, first=100.0) == {}


def test_steps_that_take_a_minute_are_told_of_at_the_second() -> None:
    assert list(notices(90.0, 100)) == [2]
    assert list(notices(25.0, 100)) == [4]


def test_what_helps_most_comes_first_and_a_resumed_run_is_only_told_what_it_may_change() -> None:
    (text,) = notices(29.0, 250, precision=EMULATED, batch_size=1).values()
    assert text == (
        "about 2.0 hours; faster passes with --precision auto, as this CPU is slow at bf16, fewer steps with --steps"
    )
    (text,) = notices(29.0, 250, precision=EMULATED, begun=100).values()
    assert text.endswith("minutes; fewer steps with --steps")


def test_advice_names_flags_that_there_are() -> None:
    assert {"steps", "batch_size", "precision"} <= FLAGS.keys()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(300, "about 5 minutes"), (60, "about 1 minute"), (5399, "about 90 minutes"), (9000, "about 2.5 hours"),
     (3.5 * 86400, "about 3.5 days")],
)  # fmt: skip
def test_durations_are_rough(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_precision_and_notice_stand_in_the_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines, clock = PlainLines(), Clock()
    lines._long_run = LongRun(clock)
    lines.dipp_on_run_start(RunStartEvent(TrainConfig(steps=1000), Path("run"), 0, EMULATED))
    for step in range(1, 8):
        clock.seconds += 3.0
        lines.dipp_on_step(StepEvent(step, 1000, {}))
    said = capsys.readouterr().err
    assert f"precision bf16: {EMULATED.reason}\n" in said
    assert said.count("about 50 minutes; faster passes with --precision auto") == 1
