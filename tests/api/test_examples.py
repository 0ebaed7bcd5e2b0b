"""The examples in docstrings of what Python calls do what they show."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import dipp_toolkit

MODULES = (
    "api.bench", "api.generate", "api.plan", "api.score", "api.train", "config", "models.generator",
    "models.own_network", "prompts.loading", "utils.python_words", "verify.call",
)  # fmt: skip
SHORT: dict[str, Any] = {"steps": 1, "batch_size": 2, "eval_count": 2, "reference_steps": 2, "progress": False}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {public: getattr(dipp_toolkit, public) for public in dipp_toolkit.__all__}
    names["train"] = lambda **words: dipp_toolkit.train(**{**words, **SHORT})
    module = import_module(f"dipp_toolkit.{name}")
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    examples = [test for test in finder.find(module, extraglobs=names) if test.examples]
    assert examples
    for test in examples:
        test.globs |= vars(module) | names
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
