"""What `dipp plugins new` writes: clean, tested, installable and found; and the guide's way from nothing to a run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import site as site_module
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from dipp_cli.actions.plugins.new import LONGEST, TEMPLATES
from dipp_cli.app import main
from documented import ROOT, blocks_of

GUIDE = ROOT / "docs" / "guide" / "writing-a-plugin.md"
NAMES = {kind: f"my-{kind}" for kind in TEMPLATES}
PIP = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
BROKEN = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n[project]\n'
BROKEN += 'name = "dipp-shattered"\nversion = "1"\n[project.entry-points.dipp]\nshattered = "dipp_shattered"\n'
BROKEN += '[tool.setuptools]\npy-modules = ["dipp_shattered"]\n'


def finished(words: list[str], *, path: tuple[Path, ...] = (), folder: Path | None = None, code: int = 0) -> str:
    """The output of a process in which the toolkit and these folders are on the path."""
    folders = [str(place) for place in (*path, ROOT, ROOT / "plugins", ROOT / "cli")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project of every kind, as they are written."""
    root = tmp_path_factory.mktemp("projects")
    for kind, name in NAMES.items():
        assert main(["plugins", "new", kind, name, "--out", str(root / name)]) == 0
    return root


@pytest.fixture(scope="module")
def site(projects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all of them are installed into, and a broken one beside them."""
    sources = tmp_path_factory.mktemp("sources")
    for name in NAMES.values():
        shutil.copytree(projects / name, sources / name)
    (sources / "broken").mkdir()
    (sources / "broken" / "pyproject.toml").write_text(BROKEN, encoding="utf-8")
    (sources / "broken" / "dipp_shattered.py").write_text("import a_package_that_nobody_has\n", encoding="utf-8")
    places = [str(place) for place in sorted(sources.iterdir())]
    finished([sys.executable, "-m", "pip", "install", *PIP, "--target", str(sources / "site"), *places])
    return sources / "site"


@pytest.mark.parametrize("name", ["b", "warmth", "a" + "2" * (LONGEST - 1), "b-" * (LONGEST // 2 - 1) + "b"])
def test_what_is_written_is_clean_by_its_own_rules(name: str, tmp_path: Path) -> None:
    """Whatever the length of the name: the formatter breaks lines where they are too long."""
    for kind in TEMPLATES:
        assert main(["plugins", "new", kind, name, "--out", str(tmp_path / kind)]) == 0
        for words in (["check"], ["format", "--check", "--diff"]):
            finished([sys.executable, "-m", "ruff", *words, "--no-cache", "."], folder=tmp_path / kind)


def test_what_is_written_is_typed(projects: Path) -> None:
    """Every function and attribute; what is imported is taken as it comes, as reading torch takes a minute."""
    packages = [project / f"dipp_{project.name.replace('-', '_')}" for project in sorted(projects.iterdir())]
    rules = ["--strict", "--follow-imports", "skip", "--allow-subclassing-any", "--allow-untyped-decorators"]
    rules += ["--no-warn-return-any", "--disable-error-code", "name-defined"]  # shape strings of jaxtyping
    rules += ["--cache-dir", os.devnull, "--config-file", os.devnull]
    shown = finished([sys.executable, "-m", "mypy", *rules, *map(str, packages)], folder=projects)
    assert f"no issues found in {2 * len(TEMPLATES)} source files" in shown


@pytest.mark.exhaustive
@pytest.mark.slow
def test_what_is_written_passes_its_own_tests(projects: Path) -> None:
    folders = [projects / name for name in NAMES.values()]
    words = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", str(projects), *map(str, folders)]
    shown = finished([sys.executable, "-m", "pytest", *words], path=tuple(folders), folder=projects)
    passed = int(re.findall(r"(\d+) passed", shown)[0])
    written = sum(path.read_text(encoding="utf-8").count("\ndef test_") for path in projects.rglob("test_*.py"))
    assert passed == written > len(TEMPLATES)


@pytest.mark.slow
def test_what_is_installed_is_found_and_works_beside_a_broken_plugin(site: Path, tmp_path: Path) -> None:
    dipp = [sys.executable, "-m", "dipp_cli", "plugins"]
    listed = json.loads(finished([*dipp, "--json"], path=(site,), folder=tmp_path))
    for kind, name in NAMES.items():
        assert name in [row["name"] for row in listed[kind]]
    assert [row["plugin"] for row in listed["broken"]] == ["shattered"]
    result = json.loads(finished([*dipp, "check", *NAMES.values(), "--json"], path=(site,), folder=tmp_path))
    assert {row["kind"]: (row["name"], row["status"]) for row in result["checks"]} == {
        kind: (name, "ok") for kind, name in NAMES.items()
    }


@pytest.mark.slow
def test_a_failure_is_said_and_is_the_exit_code(site: Path, tmp_path: Path) -> None:
    """Without a name: what does not come with the toolkit, here two of them, one broken."""
    ours = Path(shutil.copytree(site, tmp_path / "site"))
    for kind, name in NAMES.items():
        if kind != "prompts":
            module = f"dipp_{name.replace('-', '_')}"
            shutil.rmtree(ours / module)
            shutil.rmtree(next(ours.glob(f"{module}-*.dist-info")))
    prompts = ours / "dipp_my_prompts" / "prompts.py"
    prompts.write_text(prompts.read_text(encoding="utf-8").replace('"fox on blue"', '" "'), encoding="utf-8")
    words = [sys.executable, "-m", "dipp_cli", "plugins", "check"]
    rows = json.loads(finished([*words, "--json"], path=(ours,), folder=tmp_path, code=1))["checks"]
    found = {(row["kind"], row["name"], row["status"]): row["found"] for row in rows}
    assert found.keys() == {("plugin", "shattered", "failed"), ("prompts", "my-prompts", "failed")}
    assert "No module named 'a_package_that_nobody_has'" in found["plugin", "shattered", "failed"]
    assert found["prompts", "my-prompts", "failed"] == "1 of its 5 prompts are empty."


def fresh_environment(folder: Path) -> Path:
    """The interpreter of a new environment that has what runs these tests, the toolkit included, but no plugin."""
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    own = next(folder.glob("lib/python*/site-packages"))
    places = [ROOT, ROOT / "plugins", ROOT / "cli"]
    heavy = [f"import site; site.addsitedir({place!r})" for place in site_module.getsitepackages()]
    lines = [*map(str, places), *heavy]
    (own / "beside.pth").write_text("\n".join(lines), encoding="utf-8")
    return folder / "bin" / "python"


@pytest.mark.slow
def test_from_an_empty_folder_by_the_guide_alone(tmp_path: Path) -> None:
    """The commands and the edit that the guide begins with; the project goes through a wheel."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = fresh_environment(tmp_path / "environment")
    work = tmp_path / "work"
    work.mkdir()

    def run(*words: str) -> str:
        command = [str(python), *words]
        done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    new, install, check, train = (shlex.split(command) for command in blocks_of(GUIDE)[0].commands())
    run("-m", "dipp_cli", *new[1:])
    before, after = re.findall(r"^```diff\n-(.*)\n\+(.*)\n```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)[0]
    file = work / "dipp-warmth" / "dipp_warmth" / "reward.py"
    text = file.read_text(encoding="utf-8")
    assert text.count(f"{before}\n") == 1
    file.write_text(text.replace(before, after), encoding="utf-8")

    assert install[:2] == ["pip", "install"]
    wheel = ["wheel", *PIP, "--wheel-dir", "wheels", *install[2:]]
    subprocess.run([sys.executable, "-m", "pip", *wheel], cwd=work, check=True, capture_output=True)
    (built,) = (work / "wheels").iterdir()
    shutil.rmtree(work / "dipp-warmth")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(built)], cwd=work, env=environment, check=True, capture_output=True)

    shown: Any = json.loads(run("-m", "dipp_cli", "plugins", "show", "warmth", "--json"))
    (row,) = shown["entries"]
    assert (row["distribution"], row["version"], row["missing"]) == ("dipp-warmth", "0.1.0", [])
    assert Path(row["file"]).is_relative_to(tmp_path / "environment")
    checked = json.loads(run("-m", "dipp_cli", *check[1:], "--json"))
    assert [(row["name"], row["status"]) for row in checked["checks"]] == [("warmth", "ok")]
    short = ("--batch-size", "2", "--set", "eval_count=2", "--set", "reference_steps=1", "--set", "assistant_warmup=0")
    run("-m", "dipp_cli", *train[1:], *short, "--device", "cpu", "--quiet")
    rows = [json.loads(line) for line in (work / "runs/warmth/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(-1 <= row["reward/warmth"] <= 1 for row in rows)
