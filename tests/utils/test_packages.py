"""A missing package is answered with what brings it: an extra where there is one, or its distribution."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from dipp_cli.app import main
from dipp_toolkit.errors import PluginError
from dipp_toolkit.registry import get_registry
from dipp_toolkit.utils.packages import DISTRIBUTIONS, extras_of, how_to_install, not_installed

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes modules look as if they were not installed."""

    def hide(*names: str) -> None:
        find = importlib.util.find_spec

        def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
            return None if name.partition(".")[0] in names else find(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)

    return hide


@pytest.mark.parametrize(
    ("modules", "extra", "command"),
    [
        (["open_clip"], "rewards", "pip install 'dipp-toolkit[rewards]'"),
        (["open_clip", "torchvision"], "metrics", "pip install 'dipp-toolkit[metrics]'"),
        (["torch_fidelity"], "", "pip install 'dipp-toolkit[metrics]'"),
        (["open_clip", "torch_fidelity"], "rewards", "pip install 'dipp-toolkit[metrics]'"),
        (["onnxruntime", "pyarrow"], "", "pip install 'dipp-toolkit[parquet,ocr]'"),
        (["httpx"], "remote", "pip install 'dipp-toolkit[remote]'"),
        (["tensorboard"], "tensorboard", "pip install 'dipp-toolkit[tensorboard]'"),
        (["bitsandbytes"], "", "pip install 'dipp-toolkit[8bit]'"),
        (["peft"], "", "pip install peft"),
        (["sklearn", "some_module"], "", "pip install scikit-learn some_module"),
        (["pyarrow", "cv2"], "", "pip install 'dipp-toolkit[parquet]' opencv-python"),
    ],
)
def test_the_command(modules: list[str], extra: str, command: str) -> None:
    assert how_to_install(modules, extra=extra) == command


def test_extras_of_a_plugins_own_distribution_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {"dipp-mine": ["scorer>=1; extra == 'score'"], "dipp-toolkit": ["pyarrow>=14; extra == 'parquet'", "torch"]}
    monkeypatch.setattr("dipp_toolkit.utils.packages.requires", lambda name: lines[name])
    install = how_to_install(["pyarrow", "scorer"], distribution="dipp-mine")
    assert install == "pip install 'dipp-mine[score]' 'dipp-toolkit[parquet]'"


def test_the_metadata_are_the_projects() -> None:
    assert set(extras_of("dipp-toolkit")) == set(PROJECT["optional-dependencies"])
    assert extras_of("no-such-distribution") == {}


def test_every_package_that_a_part_needs_has_a_command() -> None:
    """What our own parts need comes with the toolkit or an extra of it; nothing is advised that nobody publishes."""
    own = [entry for entry in get_registry() if entry.needs]
    assert own
    core = {line.partition(">")[0] for line in PROJECT["dependencies"]}
    for entry in own:
        for module in entry.needs:
            distribution = DISTRIBUTIONS.get(module, module)
            assert distribution in core or how_to_install([module]).startswith("pip install 'dipp-toolkit["), module


def test_a_reward_whose_package_is_missing(without: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    without("open_clip")
    install = "pip install 'dipp-toolkit[rewards]'"
    pictures = Path(__file__).parents[2] / "docs/results/images"
    for line in ("train --reward hps", f"score --reward hps {pictures} --prompt a", "reward check hps"):
        assert main(line.split()) == 2
        assert f"The reward 'hps' needs open_clip, which is not installed. Run: {install}" in capsys.readouterr().err
    assert main(["plugins"]) == 0
    assert install in capsys.readouterr().out


def test_two_missing_packages_are_named_together() -> None:
    error = not_installed("It needs", ["open_clip", "torchvision"], extra="rewards")
    assert isinstance(error, PluginError)
    assert str(error).startswith("It needs open_clip and torchvision, which are not installed.")
