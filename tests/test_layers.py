"""The house stays as it is drawn: rooms on floors, imports that run down, few loose files. See `tools/structure.py`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from structure import FLOORS, PACKAGE, House, room_of

ROOT = Path(__file__).parents[1]
MOST_LOOSE = 8


@pytest.fixture(scope="module")
def house() -> House:
    return House.read(ROOT)


def test_imports_run_down_the_floors(house: House) -> None:
    assert [str(arrow) for arrow in house.against(FLOORS)] == []


def test_every_room_has_its_floor(house: House) -> None:
    assert sorted(room for rooms in FLOORS for room in rooms) == sorted(house.graph)


def test_no_rooms_import_in_a_circle(house: House) -> None:
    assert (house.knots, house.circles, house.arrows_up) == ([], [], [])


def test_few_files_lie_loose(house: House) -> None:
    assert len(house.loose) <= MOST_LOOSE, house.loose


def test_every_room_says_in_a_sentence_what_lives_there(house: House) -> None:
    folders = {path.rpartition("/")[0] for path in house.sources}
    silent = []
    for folder in sorted(folders):
        tree = house.trees.get(f"{folder}/__init__.py")
        first = (ast.get_docstring(tree) or "").partition("\n\n")[0].replace("\n", " ") if tree is not None else ""
        if not first.endswith(".") or len(first.split()) < 3:
            silent.append(folder)
    assert silent == []


def test_the_toolkit_imports_neither_plugins_nor_the_command_line(house: House) -> None:
    others = {path.name for path in (*(ROOT / "plugins").iterdir(), *(ROOT / "cli").iterdir()) if path.is_dir()}
    assert _importing(sorted((ROOT / PACKAGE).rglob("*.py")), others) == []


def test_plugins_do_not_import_the_command_line() -> None:
    assert _importing(sorted((ROOT / "plugins").rglob("*.py")), {"dipp_cli"}) == []


def test_contributing_names_the_floors_in_their_order() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = re.search(r"^    (errors <.*?)\n\n", text, re.DOTALL | re.MULTILINE)
    assert drawn is not None
    floors = [tuple(re.findall(r"\w+", part)) for part in drawn[1].split("<")]
    assert floors[: len(FLOORS) - 1] == list(FLOORS[:-1])


def test_an_import_that_runs_up_is_seen_wherever_it_stands() -> None:
    house = House(
        {
            "dipp_toolkit/utils/paths.py": "def f():\n    from ..training import run\n",
            "dipp_toolkit/training/run.py": "from ..utils.paths import f\n",
        }
    )
    assert [str(arrow) for arrow in house.against(FLOORS)] == [
        "dipp_toolkit/utils/paths.py:2 imports dipp_toolkit/training/run.py"
    ]
    assert house.knots == [["training", "utils"]]
    assert house.circles == [("training", "utils")]
    assert len(house.arrows_up) == 1


def test_imports_of_modules_and_of_names_are_told_apart() -> None:
    house = House(
        {
            "dipp_toolkit/__init__.py": "",
            "dipp_toolkit/utils/__init__.py": "",
            "dipp_toolkit/utils/paths.py": "import dipp_toolkit.errors\nPLACE = 1\n",
            "dipp_toolkit/errors.py": "",
            "dipp_toolkit/models/loading.py": "from ..utils import paths\nfrom ..utils.paths import PLACE\n",
        }
    )
    assert {(room_of(arrow.source), arrow.target) for arrow in house.arrows} == {
        ("utils", "dipp_toolkit/errors.py"),
        ("models", "dipp_toolkit/utils/paths.py"),
    }
    assert (house.floors, house.arrows_up) == (3, [])


def _importing(paths: list[Path], packages: set[str]) -> list[str]:
    """The files that import one of these packages."""
    guilty = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(name.partition(".")[0] in packages for name in names):
                guilty.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return guilty
