"""Making environments: whole or not at all, with torch shared; and what the registered ones say of themselves."""

from __future__ import annotations

import json
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from dipp_cli.app import main
from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.rewards.isolated import environments
from dipp_toolkit.rewards.isolated import install as environment_install
from dipp_toolkit.rewards.isolated.environments import MARKER, SHARING, Environment, find_registered, packages_of
from dipp_toolkit.rewards.isolated.install import install, plan
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.utils.imports import import_attribute


def write_wheel(folder: Path, name: str, source: str) -> Path:
    """A wheel of one module."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", source)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def test_a_file_of_requirements_becomes_an_environment_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    # A private package of a name that we have too: the private one wins there, and ours stays what it is here.
    wheel = write_wheel(tmp_path, "wcwidth", "import torch\nVERSION = torch.__version__\n")
    file, rewards = tmp_path / "mine.txt", tmp_path / "mine.py"
    file.write_text(f"# what mine.py needs\n{wheel}\n")
    rewards.write_text(
        "import wcwidth\n"
        "def blue(images, prompts):\n"
        f"    assert wcwidth.VERSION == {torch.__version__!r}\n"
        "    return images[:, 2].mean((1, 2))\n"
    )
    assert main(["reward", "install", str(file), "--no-deps"]) == 0
    words = capsys.readouterr()
    assert words.out == "Ready. Use it with: --reward FILE.py:NAME@mine\n"
    assert "Making the environment 'mine'" in words.err and "Checking that it works" in words.err
    folder = tmp_path / "cache" / "environments" / "mine"
    assert json.loads((folder / MARKER).read_text())["requirements"] == [str(wheel)]
    images = torch.rand(1, 3, 4, 4, requires_grad=True)
    reward = load_reward(f"{rewards}:blue@mine")
    torch.testing.assert_close(reward(images, [""]), images[:, 2].mean((1, 2)))
    reward.close()

    monkeypatch.setattr(environment_install, "run_program", lambda *words: pytest.fail("there was nothing to do"))
    (packages_of(folder) / SHARING).write_text("/moved\n")
    assert main(["reward", "install", str(file), "--no-deps"]) == 0
    assert "exists already" in capsys.readouterr().err
    assert "/moved" not in (packages_of(folder) / SHARING).read_text()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "environments"


def test_what_fails_half_way_is_never_taken_for_whole(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("one\n")
    calls: list[list[str]] = []

    def run(command: list[str], what: str, say: object) -> None:
        calls.append(list(command))
        packages_of(cache / "mine").mkdir(parents=True, exist_ok=True)
        if "pip" in command and fails:
            raise RunError(f"Could not {what}")

    monkeypatch.setattr(environment_install, "run_program", run)
    fails = True
    with pytest.raises(RunError, match="Could not install the packages"):
        install(str(file), say=lambda line: None)
    assert not (cache / "mine").exists()
    with pytest.raises(RequestError, match="no environment named 'mine'"):
        load_reward("colourfulness@mine")
    fails = False
    install(str(file), say=lambda line: None)
    assert environments.find_installed("mine").folder == cache / "mine"
    calls.clear()
    install(str(file), say=lambda line: None)
    assert not calls
    file.write_text("one\ntwo\n")
    install(str(file), say=lambda line: None)
    assert any("pip" in call for call in calls)
    fails = True
    with pytest.raises(RunError):
        install(str(file), force=True, say=lambda line: None)
    with pytest.raises(RequestError, match="no environment named 'mine'"):
        environments.find_installed("mine")


def test_pip_is_told_to_leave_torch_alone_where_it_follows_dependencies(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("one\n")
    seen: list[tuple[bool, list[str]]] = []

    def run(command: list[str], what: str, say: object) -> None:
        packages = packages_of(cache / "mine")
        packages.mkdir(parents=True, exist_ok=True)
        if "pip" in command:
            words = list(command)
            if "--constraint" in words:
                words += Path(words[words.index("--constraint") + 1]).read_text().split()
            seen.append(((packages / SHARING).exists(), words))

    monkeypatch.setattr(environment_install, "run_program", run)
    install(str(file), say=lambda line: None)
    install(str(file), no_deps=True, say=lambda line: None)
    (shared, words), (bare, plain) = seen
    assert shared and f"torch=={version('torch')}" in words and "--no-deps" not in words
    assert not bare and "--no-deps" in plain and "--constraint" not in plain


def test_a_program_that_fails_is_quoted() -> None:
    news: list[str] = []
    source = "print('Downloading it'); print('WARNING: x'); print('\\x1b[31mERROR: no luck'); raise SystemExit(3)"
    with pytest.raises(RunError, match=r"^Could not do it \(exit code 3\): Downloading it \| \[31mERROR: no luck$"):
        environment_install.run_program([sys.executable, "-c", source], "do it", news.append)
    assert news == ["  Downloading it"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hpsv", r"no environment named 'hpsv'\. Did you mean 'hpsv\d'\?.*Or name a requirements file"),
        ("./gone.txt", "There is no requirements file gone.txt"),
        ("isolated.txt", "would make an environment named 'isolated', which is already a name"),
        ("hpsv2.txt", "would make an environment named 'hpsv2', which is already a name"),
        ("a b.txt", "'a b' cannot be the name of an environment"),
        ("binary.txt", "cannot be read"),
    ],
)
def test_what_cannot_be_made_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("isolated.txt", "hpsv2.txt", "a b.txt"):
        (tmp_path / text).write_text("one\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match=sentence):
        plan(name)


@pytest.mark.parametrize("name", ["image-reward", "hpsv2", "hpsv3", "deqa"])
def test_registered_environments_say_everything(name: str) -> None:
    environment = find_registered(name)
    assert isinstance(environment, Environment)
    assert find_registered(environment.reward) == environment == plan(environment.reward).environment
    for path in filter(None, (environment.entry, environment.prepare)):
        assert callable(import_attribute(path, "test"))
    assert environment.imports and not environment.dependencies
    assert not any(
        requirement.startswith(("torch=", "torch<", "torchvision")) for requirement in environment.requirements
    )


def test_one_that_is_not_installed_says_how(cache: Path) -> None:
    with pytest.raises(RequestError, match=r"'image-reward' is not installed\. Run: dipp reward install image-reward"):
        load_reward("imagereward@isolated")
    with pytest.raises(RequestError, match=r"'hpsv2' is not installed"):
        load_reward("hps@hpsv2")


@pytest.mark.parametrize("marker", ["", "[]", "[" * 100_000, "\x00"])
def test_a_damaged_marker_is_that_of_no_environment(cache: Path, marker: str) -> None:
    folder = environments.default_folder() / "mine"
    folder.mkdir(parents=True)
    (folder / MARKER).write_text(marker, encoding="utf-8")
    with pytest.raises(RequestError, match="There is no environment named 'mine'"):
        environments.find_installed("mine")


def test_hpsv2_gets_the_table_it_lacks(tmp_path: Path) -> None:
    from dipp_hps.original import MERGES, add_merges

    folder = tmp_path / "hpsv2" / "src" / "open_clip"
    folder.mkdir(parents=True)
    add_merges(tmp_path)
    assert (folder / MERGES).read_bytes().startswith(b"\x1f\x8b")
