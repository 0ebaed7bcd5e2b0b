"""The files around the code say what is true: versions agree, targets exist, links and paths lead somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from dipp_toolkit import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def yaml_of(path: str) -> Any:
    return yaml.safe_load(text_of(path))


def test_the_version_is_the_same_wherever_it_is_written() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    module, _, name = PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"].rpartition(".")
    source = ROOT / (module.replace(".", "/") + ".py")
    assert f'\n{name} = "{__version__}"\n' in source.read_text(encoding="utf-8")
    assert yaml_of("CITATION.cff")["version"] == __version__
    assert f"version = {{{__version__}}}" in text_of("README.md")
    assert f"\n## [{__version__}]" in text_of("CHANGELOG.md")


def test_the_citation_is_complete() -> None:
    citation = yaml_of("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= citation.keys()
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["keywords"] == PROJECT["project"]["keywords"]
    (paper,) = citation["references"]
    (author,) = paper["authors"]
    readme = text_of("README.md")
    assert f"{author['family-names']}, {author['given-names']}" in readme
    assert paper["title"].partition(": ")[2] in readme
    assert paper["journal"] in readme


def test_the_workflow_makes_targets_that_exist_on_the_classifiers_pythons() -> None:
    jobs = yaml_of(".github/workflows/test.yml")["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = {match for command in commands for match in re.findall(r"\bmake (\w+)", command)}
    assert targets == {"test", "demo"}
    assert all(re.search(rf"^{target}:", text_of("Makefile"), re.MULTILINE) for target in targets)
    versions = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if ":: Python ::" in line]
    assert jobs["test"]["strategy"]["matrix"]["python"] == versions


def test_actions_are_pinned_by_their_major_version() -> None:
    used = re.findall(r"uses: (\S+)", text_of(".github/workflows/test.yml"))
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)


def test_pre_commit_has_the_projects_ruff() -> None:
    hooks = {hook["id"]: repo for repo in yaml_of(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]}
    (pin,) = [line for line in PROJECT["dependency-groups"]["test"] if str(line).startswith("ruff")]
    assert hooks["ruff-check"]["rev"] == hooks["ruff-format"]["rev"] == pin.replace("ruff~=", "v")
    assert {"check-added-large-files", "check-yaml"} <= hooks.keys()


@pytest.mark.parametrize("form", FORMS, ids=[form.stem for form in FORMS])
def test_issue_forms_have_what_the_host_asks_for(form: Path) -> None:
    parts = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= parts.keys()
    fields = [part for part in parts["body"] if part["type"] != "markdown"]
    names = [field["id"] for field in fields]
    assert len(set(names)) == len(names) > 0
    assert all(field["attributes"]["label"] for field in fields)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_paths_that_the_pages_name_exist(page: str) -> None:
    roots = {path.name for path in ROOT.iterdir()}
    spans = re.findall(r"`([^`\s]+)`", text_of(page))
    paths = [span for span in spans if span.partition("/")[0] in roots and "NAME" not in span]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_map_has_every_room_and_every_loose_file() -> None:
    table = text_of("CONTRIBUTING.md")
    package = ROOT / "dipp_toolkit"
    for path in sorted(package.iterdir()):
        if (path / "__init__.py").is_file():
            assert f"| `dipp_toolkit/{path.name}/` |" in table, path
        elif path.suffix == ".py":
            assert f"`dipp_toolkit/{path.name}`" in table, path


def test_contrib_is_imported_by_nothing_and_is_not_in_the_wheel() -> None:
    find = PROJECT["tool"]["setuptools"]["packages"]["find"]
    assert "contrib" not in find["where"]
    assert all(pattern.startswith("dipp_") for pattern in find["include"])
    sources = [path for folder in ("dipp_toolkit", "plugins", "cli") for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in sources if re.search(r"^\s*(from|import) contrib\b", path.read_text("utf-8"), re.M)] == []
