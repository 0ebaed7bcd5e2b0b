"""What somebody's own code raises: its file, its line and the text of the line are said, and where the rest is."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from dipp_cli.app import main
from dipp_toolkit import hookimpl
from dipp_toolkit.registry import Registry
from dipp_toolkit.utils.exception_text import own_line, raised
from tiny import PROMPTS, tiny_pipeline

REWARD = """def blue(images, prompts):
    scores = images[:, 2].mean((1, 2))
    return scores / len(prompts[5:])[0]
"""
THIRD_LINE = "line 3: return scores / len(prompts[5:])[0]"
TERM = """import torch

calls = []


class Fails:
    def __init__(self, context):
        from dipp_toolkit.objective.terms.integral_kl import IntegralKL
        self.inner = IntegralKL.build(context)

    def __call__(self, sample):
        calls.append(1)
        if len(calls) == 3:
            raise KeyError("left")
        return self.inner(sample)
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline's folder."""
    return tiny_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline")


def caught(file: Path, code: str) -> Exception:
    """What a piece of code in a file raises."""
    file.write_text(code)
    with pytest.raises(Exception) as raising:
        exec(compile(code, str(file), "exec"), {})
    return raising.value


def test_the_deepest_line_of_ones_own_is_named_also_where_a_library_raises(tmp_path: Path) -> None:
    error = caught(tmp_path / "mine.py", "import json\n\ndef read(text):\n    return json.loads(text)\n\nread('{')\n")
    assert raised(error).endswith("(mine.py, line 4: return json.loads(text))")
    assert raised(error).startswith("JSONDecodeError: Expecting property name")


def test_a_file_elsewhere_is_named_with_its_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("elsewhere") / "mine.py"
    assert own_line(caught(file, "1 / 0\n")) == f"{file}, line 1: 1 / 0"


def test_an_error_of_libraries_alone_names_no_line() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        own = error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)
    assert own_line(own) == ""
    assert "(" not in raised(ZeroDivisionError("division by zero"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("ends with a stop."), "ValueError: ends with a stop"),
        (ValueError(""), "ValueError"),
        (ValueError("two\nlines \x1b[2J"), "ValueError: two lines [2J"),
        (ValueError("x" * 3000), f"ValueError: {'x' * 500}..."),
    ],
)
def test_its_words_fit_a_line(error: Exception, words: str) -> None:
    assert raised(error) == words


def refused(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on stderr of a command that fails."""
    assert main(words) == code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed.err.splitlines()[-1]


def test_a_file_that_does_not_import(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("import json\nimport no_such_package\n\ndef blue(images, prompts):\n    return 1\n")
    for words in (["reward", "check", "./mine.py:blue"], ["train", "--reward", "./mine.py:blue"]):
        said = refused(words, 2, capsys)
        assert "No module named 'no_such_package' (mine.py, line 2: import no_such_package)." in said
        assert said.endswith("Run again with --debug for the traceback.")
    Path("mine.py").write_text("def blue(images, prompts)\n    return 1\n")
    assert "in line 1: expected ':' (def blue(images, prompts))." in refused(words, 2, capsys)


def test_debug_shows_the_traceback_in_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("raise ValueError('mine')\n")
    assert main(["reward", "check", "./mine.py:blue", "--debug"]) == 2
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert "Run again" not in said


def test_a_reward_that_scores(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(REWARD)
    Image.new("RGB", (8, 8)).save("a.png")
    said = refused(["score", "a.png", "--prompt", "x", "--reward", "./mine.py:blue"], 1, capsys)
    assert (
        f"The reward './mine.py:blue' failed with TypeError: 'int' object is not subscriptable (mine.py, {THIRD_LINE})"
        in said
    )
    assert "Run again with --debug" in said
    assert main(["reward", "check", "./mine.py:blue", "--size", "16", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["checks"]
    assert any(f"TypeError: 'int' object is not subscriptable (mine.py, {THIRD_LINE})." in row["found"] for row in rows)


def test_a_term_that_fails_in_a_step_leaves_a_run_that_goes_on(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(TERM)
    Path("prompts.txt").write_text("\n".join(PROMPTS))
    words = f"--generator {tiny} --reference {tiny} --prompts prompts.txt --term ./mine.py:Fails --out run".split()
    small = ["--batch-size", "2", "--steps", "4", "--set", "eval_count=2", "--set", "reference_steps=1"]
    said = refused(["distill", *words, *small], 1, capsys)
    assert "The run failed with KeyError: 'left' (mine.py, line 14: raise KeyError(\"left\"))." in said
    assert "The run stopped after step 2 of 4; everything is saved." in said
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["step-00000002"]


def test_a_kernel_that_is_missing_says_what_goes_on_without_it(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = "histc_cuda does not have a deterministic implementation, but you set 'use_deterministic_algorithms'."
    Path("mine.py").write_text(TERM.replace('KeyError("left")', f'RuntimeError("{lacking}")'))
    Path("prompts.txt").write_text("\n".join(PROMPTS))
    words = f"--generator {tiny} --reference {tiny} --prompts prompts.txt --term ./mine.py:Fails --out run".split()
    small = ["--batch-size", "2", "--steps", "4", "--set", "eval_count=2", "--set", "reference_steps=1"]
    said = refused(["distill", *words, *small], 1, capsys)
    assert "The run needs histc_cuda, which has no deterministic kernel on a GPU." in said
    assert main(["distill", "--resume", "--out", "run", "--set", "deterministic=false"]) == 0


def test_a_plugins_factory_that_raises_is_named_by_its_line(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_plugin.py").write_text(
        "from dipp_toolkit import hookimpl\n\n\n"
        "@hookimpl\ndef dipp_register_generators(register):\n    register('mine', build)\n\n\n"
        "def build():\n    return {}['weights']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.add_plugin("mine", EntryPoint("mine", "my_plugin", "dipp").load)
    for module in (
        "dipp_toolkit.models.loading",
        "dipp_toolkit.rewards.loading",
        "dipp_toolkit.training.setup.name_checks",
        "dipp_toolkit.models.files.named_folders",
    ):
        monkeypatch.setattr(f"{module}.get_registry", lambda: registry)
    (tmp_path / "model_index.json").write_text("{}")
    said = refused(["generate", "--generator", "mine", "--reference", str(tmp_path), "--prompt", "x"], 2, capsys)
    assert (
        "The generator 'mine' cannot be loaded: KeyError: 'weights' (my_plugin.py, line 10: return {}['weights'])."
        in said
    )


def test_a_plugin_that_cannot_be_imported_says_at_which_line(registry: Registry) -> None:
    def load() -> Any:
        module = ModuleType("mine")
        module.dipp_register_rewards = hookimpl(lambda register: {}["x"], specname="dipp_register_rewards")  # type: ignore[attr-defined]
        return module

    registry.add_plugin("mine", load)
    (broken,) = registry.broken
    assert broken.reason.startswith("KeyError: 'x' (")
    assert "test_exception_text.py, line" in broken.reason
