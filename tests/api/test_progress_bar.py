"""The bar of a run in a notebook or a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from dipp_toolkit import TrainConfig
from dipp_toolkit.api.progress import ProgressBar, in_notebook, is_watched
from dipp_toolkit.events import RunEndEvent, RunStartEvent, StepEvent, WarmUpEvent


class FakeBar:
    """Records what tqdm would show."""

    made: list[FakeBar]
    said: list[str]

    def __init__(self, desc: str, total: int, **options: Any):
        self.desc, self.total, self.n, self.postfix, self.closed = desc, total, options.get("initial", 0), {}, False
        type(self).made.append(self)

    @classmethod
    def write(cls, text: str, file: Any) -> None:
        cls.said.append(text)

    def update(self, count: int) -> None:
        self.n += count

    def set_postfix(self, numbers: dict[str, str], refresh: bool) -> None:
        self.postfix = numbers

    def set_description(self, text: str) -> None:
        self.desc = text

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bar() -> ProgressBar:
    FakeBar.made, FakeBar.said = [], []
    return ProgressBar(FakeBar)


def test_a_run_is_a_bar_of_its_steps(bar: ProgressBar) -> None:
    config = TrainConfig(steps=2)
    with bar:
        bar.dipp_on_run_start(RunStartEvent(config, Path("runs/x"), 0, warnings=("Give more with --steps.",)))
        bar.dipp_on_warm_up(WarmUpEvent(1, 1, 0.5))
        for step in (1, 2):
            bar.dipp_on_step(StepEvent(step, 2, {"reward/a": 0.25, "divergence": 0.5, "seconds": 1.0}))
        bar.dipp_on_run_end(RunEndEvent(Path("runs/x"), {}))
    assert [(one.desc, one.total, one.n, one.closed) for one in FakeBar.made] == [
        ("training", 2, 0, True),
        ("assistant warm-up", 1, 1, True),
        ("done", 2, 2, True),
    ]
    assert FakeBar.made[-1].postfix == {"a": "0.250", "divergence": "0.5"}
    assert FakeBar.said == ["Warning: Give more with steps=."]


def test_a_resumed_run_begins_where_it_was(bar: ProgressBar) -> None:
    with bar:
        bar.dipp_on_run_start(RunStartEvent(TrainConfig(steps=5), Path("runs/x"), 3))
        bar.dipp_on_step(StepEvent(4, 5, {}))
    assert (FakeBar.made[0].n, FakeBar.made[0].closed) == (4, True)


def test_nobody_sees_a_bar_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert not is_watched()
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", terminal)
    assert is_watched()


def test_tqdm_draws_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    bar = ProgressBar()
    with bar:
        bar.dipp_on_run_start(RunStartEvent(TrainConfig(steps=3), Path("runs/x"), 0))
        bar.dipp_on_step(StepEvent(1, 3, {"divergence": 1.0}))
    assert "1/3" in screen.getvalue()
