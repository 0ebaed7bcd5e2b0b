"""A pipeline class that an older diffusers lacks is a sentence with the version that has it."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import diffusers
import pytest
from packaging.version import Version

from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.family import Since
from dipp_toolkit.models.files.diffusers_version import check_diffusers
from dipp_toolkit.models.files.folders import family_of
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.registry import Entry, Registry, get_registry

MODULE = "dipp_toolkit.models.files.diffusers_version"
INSTALLED = version("diffusers")
SINCE = {name: entry.build() for name, entry in get_registry().entries["pipeline"].items()}


class Future:
    """A family of a class that no diffusers has yet."""

    network_name = "transformer"
    since = "99.1"

    def write_twin(self, folder: Path) -> None:
        raise AssertionError("the class is not there")


@pytest.mark.parametrize("name", [name for name, family in SINCE.items() if isinstance(family, Since)])
def test_the_installed_diffusers_has_what_came_before_it(name: str) -> None:
    family = SINCE[name]
    assert isinstance(family, Since)
    assert (Version(family.since) <= Version(INSTALLED)) == hasattr(diffusers, name)


def test_a_later_class_names_both_versions(registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry.entries["pipeline"]["FuturePipeline"] = Entry("pipeline", "FuturePipeline", Future, "", (), "future")
    for place in ("files.folders", "tiny_pipelines"):
        monkeypatch.setattr(f"dipp_toolkit.models.{place}.get_registry", lambda: registry)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FuturePipeline"}))
    with pytest.raises(RequestError) as error:
        family_of(tmp_path)
    assert str(error.value) == (
        f"The installed diffusers {INSTALLED} has no FuturePipeline, which {tmp_path} is. It came with diffusers 99.1. "
        "Run: pip install --upgrade 'diffusers>=99.1'"
    )
    with pytest.raises(RequestError, match=r"has no FuturePipeline\. It came with diffusers 99\.1\."):
        write_twin("FuturePipeline", tmp_path / "twin")


@pytest.mark.parametrize(
    ("installed", "refused"), [("99.0.4", True), ("99.1.0.dev0", False), ("99.1.0", False), ("100.0", False)]
)
def test_the_number_of_the_version_decides(installed: str, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}.version", lambda _: installed)
    if refused:
        with pytest.raises(RequestError, match=f"The installed diffusers {installed} has no FuturePipeline"):
            check_diffusers("FuturePipeline", Future())
    else:
        check_diffusers("FuturePipeline", Future())
    check_diffusers("PastPipeline", object())
