"""A user's own Python file on the command line: what works, and a sentence for everything that does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from dipp_toolkit.config import make_config
from dipp_toolkit.errors import PluginError, RequestError
from dipp_toolkit.objective.base import TermContext
from dipp_toolkit.objective.build import build_term
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.utils.imports import check_call, is_python_name, load_python_name
from dipp_toolkit.verify.cases import make_reference
from dipp_toolkit.verify.world import AffineGenerator, AffineMap, ExactAssistant

BLUENESS = """
    def blueness(images, prompts):
        red, green, blue = images.mean((2, 3)).unbind(1)
        return blue - (red + green) / 2
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_file(source: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(dedent(source), encoding="utf-8")
        return path

    return write_file


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./blue.py:blueness", True),
        ("blue.py", True),
        ("package.module:name", True),
        ("hps", False),
        ("diffusers:some/folder", False),
        ("https://host:80/x", False),
        ("emoji-clip", False),
    ],
)
def test_which_names_mean_python(name: str, expected: bool) -> None:
    assert is_python_name(name) is expected


def test_a_function_is_a_reward(write: Callable[[str], Path]) -> None:
    reward = load_reward(f"{write(BLUENESS)}:blueness")
    images = torch.zeros(2, 3, 4, 4)
    images[1, 2] = 1
    torch.testing.assert_close(reward(images, ["a", "b"]), torch.tensor([0.0, 1.0]))
    assert reward.differentiable is None


def test_a_single_function_needs_no_name(write: Callable[[str], Path]) -> None:
    assert load_python_name(str(write(BLUENESS)), "reward").__name__ == "blueness"


def test_imported_functions_do_not_count(write: Callable[[str], Path]) -> None:
    path = write("from math import sqrt\nfrom pathlib import Path\ndef mine(images, prompts): return images")
    assert load_python_name(str(path), "reward").__name__ == "mine"


def test_a_module_on_the_path_is_found() -> None:
    assert load_python_name("math:sqrt", "reward")(4.0) == 2.0


def test_a_class_takes_options(write: Callable[[str], Path]) -> None:
    source = """
        class Channel:
            differentiable = True
            def __init__(self, channel=0):
                self.channel = channel
            def __call__(self, images, prompts):
                return images[:, self.channel].mean((1, 2))
    """
    reward = load_reward(f"{write(source)}:Channel", channel=2)
    assert reward(torch.ones(1, 3, 2, 2) * torch.tensor([0.0, 0.0, 5.0])[:, None, None], [""]).item() == 5


SENTENCES = {
    "syntax": ("def f(images, prompts:\n    pass\n", ":f", r"mine\.py has a syntax error in line 1: "),
    "import": ("import unobtainium", ":f", r"failed to import with ModuleNotFoundError: .*unobtainium"),
    "raises": ("1 / 0", ":f", r"failed to import with ZeroDivisionError: division by zero"),
    "no name, two functions": (
        "def f(images, prompts): ...\ndef g(images, prompts): ...",
        "",
        r"Say which reward of .*mine\.py:NAME, .* one of f, g",
    ),
    "no name, no function": ("x = 1", "", "defines no function and no class"),
    "misspelt": ("def blueness(images, prompts): ...", ":bluenes", r"defines no 'bluenes'\. Did you mean 'blueness'\?"),
    "missing": ("def blueness(images, prompts): ...", ":qqq", r"defines no 'qqq'\. It defines blueness\."),
    "no callable": ("blueness = 3", ":blueness", r"is a int; expected a function of \(images, prompts\)"),
    "one argument": ("def f(images): ...", ":f", r"has the signature \(images\); expected .*reward\(images, prompts\)"),
    "three arguments": ("def f(images, prompts, extra): ...", ":f", r"has the signature \(images, prompts, extra\)"),
}


@pytest.mark.parametrize(("source", "attribute", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_bad_files_get_a_sentence(write: Callable[[str], Path], source: str, attribute: str, sentence: str) -> None:
    with pytest.raises(PluginError, match=sentence):
        load_reward(f"{write(source)}{attribute}")


def test_a_missing_file_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=rf"There is no file .*gone\.py for the reward .* \(looked in {tmp_path}\)"):
        load_reward(f"{tmp_path}/gone.py:f")


def test_a_binary_file_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "noise.py"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(PluginError, match=r"noise\.py (has a syntax error|failed to import)"):
        load_reward(f"{path}:f")


def test_a_missing_module_gets_a_sentence() -> None:
    with pytest.raises(PluginError, match="importing no_such_package failed with ModuleNotFoundError"):
        load_reward("no_such_package:reward")


def test_options_for_a_plain_function_are_refused(write: Callable[[str], Path]) -> None:
    with pytest.raises(RequestError, match="is a function and takes no options; make it a class"):
        load_reward(f"{write(BLUENESS)}:blueness", strength=2)


def test_an_unknown_option_of_a_class_is_refused(write: Callable[[str], Path]) -> None:
    source = "class R:\n    def __init__(self, size=1): ...\n    def __call__(self, images, prompts): ..."
    with pytest.raises(RequestError, match="Did you mean 'size'"):
        load_reward(f"{write(source)}:R", siez=2)


def test_defaults_make_a_signature_fit() -> None:
    check_call(lambda images, prompts, scale=1.0: images, ("images", "prompts"), "reward 'f'")
    check_call(lambda *anything: anything, ("images", "prompts"), "reward 'f'")


def test_a_term_that_cannot_be_called_is_a_sentence(write: Callable[[str], Path]) -> None:
    path = write("def build(context):\n    return 3\n")
    reference = make_reference()
    generator = AffineGenerator(AffineMap(torch.eye(3), torch.zeros(3)))
    assistant = ExactAssistant(generator, reference.denoiser.schedule)
    with pytest.raises(PluginError, match=r"made 3; expected a callable that takes a sample"):
        build_term(f"{path}:build", TermContext(reference, assistant, make_config({})))
