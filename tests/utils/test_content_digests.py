"""What a number depends on is known by its content: files whole, code with all that it imports, weights, options."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dipp_toolkit.experiments.bench.score_cache import version_of
from dipp_toolkit.rewards.code_digests import code_digest, identity_of
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.rewards.text_features import TextFeatures
from dipp_toolkit.utils import content_digests
from dipp_toolkit.utils.content_digests import file_digest, folder_digest, path_digest
from dipp_toolkit.utils.fingerprint import circumstances, software


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose bytes were read."""
    names: list[str] = []
    whole = content_digests.sha256_of

    def noting(path: Path) -> str:
        names.append(path.name)
        return whole(path)

    monkeypatch.setattr(content_digests, "sha256_of", noting)
    monkeypatch.setattr(content_digests, "LARGE", 10)
    return names


def aged(path: Path, content: bytes, seconds: float = 100.0) -> Path:
    """A file that was written a while ago, as far as its time tells."""
    path.write_bytes(content)
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))
    return path


def test_a_large_file_is_read_once_and_again_when_it_changes(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_digests, "SETTLED", -1.0)
    path = aged(tmp_path / "w.safetensors", b"x" * 1000)
    first = file_digest(path)
    assert file_digest(path) == first and len(hashed) == 1
    before = path.stat()
    path.write_bytes(b"x" * 500 + b"y" + b"x" * 499)  # of the same size, with its old time put back
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_digest(path) != first and len(hashed) == 2


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, hashed: list[str]) -> None:
    path = aged(tmp_path / "w", b"x" * 1000)  # its inode has changed just now, whatever its time says
    assert file_digest(path) == file_digest(path)
    assert len(hashed) == 2


def test_a_damaged_or_unwritable_note_only_costs_time(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_digests, "SETTLED", -1.0)
    path = aged(tmp_path / "w", b"x" * 1000)
    first = file_digest(path)
    for note in (tmp_path / "cache" / "digests").iterdir():
        note.write_text("[" * 100_000)
    assert file_digest(path) == first and len(hashed) == 2
    monkeypatch.setenv("DIPP_CACHE", str(path))
    assert file_digest(path) == first and len(hashed) == 3


def test_a_folder_is_its_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "f" / "deep").mkdir(parents=True)
    (tmp_path / "f" / "deep" / "a").write_bytes(b"1")
    first = folder_digest(tmp_path / "f")
    (tmp_path / "f" / "deep" / "a").write_bytes(b"2")
    second = folder_digest(tmp_path / "f")
    (tmp_path / "f" / "deep" / "a").rename(tmp_path / "f" / "deep" / "b")
    assert len({first, second, folder_digest(tmp_path / "f")}) == 3
    assert path_digest(tmp_path / "nothing") is None


REWARD = """
import sys
sys.path.insert(0, {folder!r})
from {helper} import scale
import {helper}_package.part as part

LIMIT = {limit}

def f(images, prompts):
    from {helper}_late import late
    return images.mean((1, 2, 3)) * scale + part.VALUE + late + LIMIT
"""


@pytest.fixture
def reward(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A file with a reward that imports a helper, a package and, while it runs, another helper; their first name."""
    helper = f"helper_{tmp_path.name.replace('-', '_')}"
    package = tmp_path / f"{helper}_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("from . import inner\nVALUE = inner.VALUE\n")
    (package / "inner.py").write_text("VALUE = 1\n")
    (tmp_path / f"{helper}.py").write_text("scale = 2\n")
    (tmp_path / f"{helper}_late.py").write_text("late = 3\n")
    path = tmp_path / "reward.py"
    path.write_text(REWARD.format(folder=str(tmp_path), helper=helper, limit=1))
    before = list(sys.path), set(sys.modules)
    yield path, helper
    sys.path[:] = before[0]
    for name in set(sys.modules) - before[1]:
        if name.startswith((helper, "dipp_user_")):
            del sys.modules[name]


@pytest.mark.parametrize(
    "edited", ["reward.py", "{}.py", "{}_package/__init__.py", "{}_package/inner.py", "{}_late.py"]
)
def test_an_edit_anywhere_in_what_a_reward_imports_is_another_version(reward: tuple[Path, str], edited: str) -> None:
    path, helper = reward
    name = f"{path}:f"
    before = version_of(name, {}, load_reward(name))
    assert version_of(name, {}, load_reward(name)) == before
    other = path.parent / edited.format(helper)
    other.write_text(other.read_text() + "# edited\n")
    assert version_of(name, {}, load_reward(name)) != before


def test_other_files_and_places_are_not_in_the_identity(reward: tuple[Path, str], tmp_path: Path) -> None:
    path, _ = reward
    before = identity_of(load_reward(f"{path}:f"))
    (path.parent / "unrelated.py").write_text("1")
    moved = path.with_name("moved.py")
    path.rename(moved)
    assert identity_of(load_reward(f"{moved}:f")) == before


def test_an_option_is_its_files_content(tmp_path: Path) -> None:
    file, folder = tmp_path / "w.pt", tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"one")
    file.write_bytes(b"one")
    for option, path in ((file, file), (str(folder), folder / "a.png")):
        before = version_of("clip", {"checkpoint": option}, None)
        path.write_bytes(b"two")  # of the same size
        assert version_of("clip", {"checkpoint": option}, None) != before


WEIGHTS = {"network": nn.Linear(2, 2)}


def through_a_global(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return WEIGHTS["network"](images[:, 0, 0, :2])[:, 0]


class Held:
    def __init__(self, factor: float = 1.0) -> None:
        self.parts = [{"factor": factor}, nn.Linear(2, 2)]
        self.device = "cpu"

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images.mean((1, 2, 3)) * self.parts[0]["factor"]


def test_weights_and_numbers_are_found_wherever_a_reward_holds_them() -> None:
    held = Held()
    things: list[tuple[Any, Callable[[], Any]]] = [
        (through_a_global, lambda: WEIGHTS["network"].weight.data.add_(1)),
        (held, lambda: held.parts[1].weight.data.add_(1)),
        (held, lambda: held.parts[0].update(factor=2.0)),
        (partial(through_a_global, **{"table": (table := torch.zeros(2))}), lambda: table.add_(1)),
    ]
    for thing, change in things:
        before = identity_of(thing)
        assert identity_of(thing) == before
        change()
        assert identity_of(thing) != before
    before = identity_of(held)
    held.device = "cuda:1"
    assert identity_of(held) == before


class Remembering:
    memories = ("seen",)

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.seen: dict[str, Tensor] = {}
        self.texts = TextFeatures(lambda prompts: torch.full((len(prompts), 2), factor))

    @cached_property
    def doubled(self) -> float:
        return 2 * self.factor

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.seen |= dict.fromkeys(prompts, images[0])
        return self.texts(prompts)[:, 0] * self.doubled


def test_what_a_reward_only_remembers_is_not_in_its_identity() -> None:
    reward, other = Remembering(1.0), Remembering(2.0)
    before = identity_of(reward)
    reward(torch.ones(1, 3, 4, 4), ["a cow"])
    assert len(reward.texts) == len(reward.seen) == 1 and "doubled" in vars(reward)
    assert identity_of(reward) == before != identity_of(other)


def test_the_toolkits_own_are_known_by_name_options_and_weights() -> None:
    assert not code_digest(load_reward("colourfulness"))
    assert code_digest(through_a_global)


def test_an_installed_package_is_read_where_the_reward_is_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "someones_rewards"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .parts import f\n")
    (package / "parts.py").write_text("def f(images, prompts):\n    return images.mean((1, 2, 3))\n")
    monkeypatch.syspath_prepend(str(package.parent))
    reward = load_reward("someones_rewards:f")
    before = identity_of(reward)
    assert code_digest(reward)
    (package / "parts.py").write_text("def f(images, prompts):\n    return images.amax((1, 2, 3))\n")
    assert identity_of(reward) != before
    for name in ("someones_rewards", "someones_rewards.parts"):
        del sys.modules[name]


def test_an_identity_is_the_same_in_another_process(reward: tuple[Path, str]) -> None:
    path, _ = reward
    code = (
        "import sys; from dipp_toolkit.rewards.code_digests import identity_of\n"
        "from dipp_toolkit.rewards.loading import load_reward\n"
        "print(identity_of(load_reward(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"{path}:f"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"},
    )
    assert done.stdout.strip() == identity_of(load_reward(f"{path}:f"))


def test_circumstances_tell_batches_and_threads_apart() -> None:
    cpu = torch.device("cpu")
    assert circumstances(cpu, 1) != circumstances(cpu, 32)
    assert circumstances(cpu, 32)["threads"] == torch.get_num_threads()
    assert circumstances(cpu, 32)["software"]["torch"] == torch.__version__
    assert len(software()["dipp-toolkit"]) == 16
