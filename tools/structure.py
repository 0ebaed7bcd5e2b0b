"""The house in numbers: rooms, the imports between them, sizes. `python tools/structure.py [TREE] [--before COMMIT]`.

A room is a folder directly below `dipp_toolkit/`, with all that lies in it; a loose file there stands for itself. An
arrow is an import from one of these to another, wherever in a file it stands: lazy imports and those for type checkers
count. `tests/test_layers.py` holds the house to `FLOORS`.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "dipp_toolkit"
FLOORS = (
    ("errors",),
    ("distributed",),
    ("utils",),
    ("config", "diffusion"),
    ("protocols",),
    ("events",),
    ("hooks",),
    ("registry",),
    ("models",),
    ("prompts",),
    ("rewards",),
    ("planning",),
    ("objective",),
    ("evaluation",),
    ("preferences",),
    ("monitoring",),
    ("report",),
    ("training",),
    ("experiments",),
    ("verify",),
    ("api",),
    ("__init__",),
)
"""Rooms and loose files from the ground up: whatever stands on a floor imports from floors below it only."""
SMALL = 60
"""Lines below which a file is small."""


@dataclass(frozen=True)
class Arrow:
    """One import.

    Attributes:
        source: the importing file, below the tree.
        target: the imported file.
        line: where the import stands.
    """

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


@dataclass(frozen=True)
class House:
    """The Python files of a package and their imports.

    Attributes:
        sources: text by path below the tree, such as `dipp_toolkit/config.py`.
    """

    sources: Mapping[str, str]

    @classmethod
    def read(cls, tree: Path) -> House:
        """The package as it lies below a folder.

        Raises:
            FileNotFoundError: there is no such package.
        """
        paths = sorted((tree / PACKAGE).rglob("*.py"))
        if not paths:
            raise FileNotFoundError(f"There is no {PACKAGE} with Python files in {tree}.")
        return cls({path.relative_to(tree).as_posix(): path.read_text(encoding="utf-8") for path in paths})

    @classmethod
    def at(cls, commit: str) -> House:
        """The package as a commit of this repository has it."""
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", "--format=tar", commit, PACKAGE], capture_output=True, check=True
        )
        with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder, filter="data")
            return cls.read(Path(folder))

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """The syntax trees by path."""
        return {path: ast.parse(text) for path, text in self.sources.items()}

    @cached_property
    def loose(self) -> list[str]:
        """Files directly in the package."""
        return [path for path in self.sources if path.count("/") == 1]

    @cached_property
    def rooms(self) -> list[str]:
        """Folders directly in the package."""
        return sorted({room_of(path) for path in self.sources if path.count("/") > 1})

    @cached_property
    def arrows(self) -> list[Arrow]:
        """The imports from one file of the package to another, each pair of files once."""
        files = {module_of(path): path for path in self.sources}
        pairs: dict[tuple[str, str], Arrow] = {}
        for path, tree in self.trees.items():
            for line, module in _imports(tree, module_of(path), path.endswith("__init__.py"), files):
                if files[module] != path:
                    pairs.setdefault((path, files[module]), Arrow(path, files[module], line))
        return list(pairs.values())

    @cached_property
    def graph(self) -> dict[str, set[str]]:
        """Which rooms and loose files each of them imports from."""
        graph: dict[str, set[str]] = {room_of(path): set() for path in self.sources}
        for arrow in self.arrows:
            source, target = room_of(arrow.source), room_of(arrow.target)
            if source != target:
                graph[source].add(target)
        return graph

    @cached_property
    def knots(self) -> list[list[str]]:
        """Rooms and loose files that all reach one another."""
        return [sorted(knot) for knot in _components(self.graph) if len(knot) > 1]

    @cached_property
    def circles(self) -> list[tuple[str, str]]:
        """Pairs that import each other directly."""
        return sorted(
            (name, other)
            for name, targets in self.graph.items()
            for other in targets
            if name < other and name in self.graph[other]
        )

    @cached_property
    def order(self) -> list[str]:
        """Rooms and loose files, those that import little first, so that few arrows run up; by a greedy rule."""
        return _order(self.graph)

    @cached_property
    def floors(self) -> int:
        """The longest way down through the arrows that run down in `order`, counted in rooms."""
        height: dict[str, int] = {}
        for room in self.order:
            height[room] = 1 + max((height[below] for below in self.graph[room] if below in height), default=0)
        return max(height.values())

    @cached_property
    def arrows_up(self) -> list[tuple[str, str]]:
        """Arrows between rooms that run up in `order`."""
        place = {room: index for index, room in enumerate(self.order)}
        return sorted(
            (room, target) for room, targets in self.graph.items() for target in targets if place[target] > place[room]
        )

    def against(self, floors: Sequence[Sequence[str]]) -> list[Arrow]:
        """Imports that do not run down.

        Args:
            floors: rooms and loose files from the ground up.
        """
        height = {room: index for index, rooms in enumerate(floors) for room in rooms}
        return [
            arrow
            for arrow in self.arrows
            for source, target in [(room_of(arrow.source), room_of(arrow.target))]
            if source != target and height.get(source, -1) <= height.get(target, len(floors))
        ]

    def numbers(self) -> dict[str, str]:
        """What `python tools/structure.py` prints."""
        lines = {path: len(text.splitlines()) for path, text in self.sources.items()}
        functions = [
            ((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}: {node.name}")
            for path, tree in self.trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        longest, name = max(functions)
        inside = sum(room_of(arrow.source) == room_of(arrow.target) for arrow in self.arrows)
        small = [path for path, count in lines.items() if count < SMALL and not path.endswith("__init__.py")]
        return {
            "rooms": str(len(self.rooms)),
            "loose files": str(len(self.loose)),
            "floors": str(self.floors),
            "arrows between rooms": str(sum(map(len, self.graph.values()))),
            "arrows up": str(len(self.arrows_up)),
            "circles of two": str(len(self.circles)),
            "knots (rooms in them)": f"{len(self.knots)} ({sum(map(len, self.knots))})",
            "files": str(len(lines)),
            "lines": f"{sum(lines.values()):,}",
            f"files under {SMALL} lines": f"{len(small)}",
            f"__init__ files under {SMALL} lines": str(
                sum(path.endswith("__init__.py") and count < SMALL for path, count in lines.items())
            ),
            "longest function": f"{longest} lines ({name})",
            "imports inside a room": f"{inside / len(self.arrows):.0%} of {len(self.arrows)}",
        }


def room_of(path: str) -> str:
    """The room of a file, or the name of a loose one."""
    parts = path.split("/")
    return parts[1].removesuffix(".py")


def module_of(path: str) -> str:
    """`dipp_toolkit/utils/paths.py` as `dipp_toolkit.utils.paths`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(tree: ast.Module, module: str, is_package: bool, files: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Line and module of every import of a file that is of the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}" if f"{base}.{alias.name}" in files else base
                if name in files:
                    yield node.lineno, name


def _components(graph: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """Strongly connected components: what all reaches one another."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        reach[start], waiting = set(), [start]
        while waiting:
            for target in graph[waiting.pop()]:
                if target not in reach[start]:
                    reach[start].add(target)
                    waiting.append(target)
    components: list[set[str]] = []
    for room in graph:
        if not any(room in component for component in components):
            components.append({room, *(other for other in reach[room] if room in reach[other])})
    return components


def _order(graph: Mapping[str, set[str]]) -> list[str]:
    """An order in which few arrows run up (Eades, Lin and Smyth's greedy rule for feedback arcs).

    What imports nothing of the rest comes first and what nothing imports last; where neither is, the one that imports
    least beside how often it is imported.
    """
    left = {room: set(targets) for room, targets in graph.items()}
    bottom: list[str] = []
    top: list[str] = []
    while left:
        importers: dict[str, int] = defaultdict(int)
        for targets in left.values():
            for target in targets:
                importers[target] += 1
        sinks = sorted(room for room, targets in left.items() if not targets)
        sources = sorted(room for room in left if not importers[room])
        if sinks:
            room, place = sinks[0], bottom
        elif sources:
            room, place = sources[0], top
        else:
            room = min(sorted(left), key=lambda name: len(left[name]) - importers[name])
            place = bottom
        place.append(room)
        del left[room]
        for targets in left.values():
            targets.discard(room)
    return bottom + top[::-1]


def main() -> None:
    """Prints the numbers of a tree, and those of an earlier commit beside them."""
    parser = argparse.ArgumentParser(description="The house in numbers: rooms, the imports between them, sizes.")
    parser.add_argument("tree", nargs="?", type=Path, default=ROOT, help="a checkout; this one where it is left out")
    parser.add_argument("--before", metavar="COMMIT", help="a commit of this repository to print beside it")
    arguments = parser.parse_args()
    columns = [House.at(arguments.before).numbers()] if arguments.before else []
    house = House.read(arguments.tree)
    columns.append(house.numbers())
    wide = max(map(len, columns[-1]))
    for name in columns[-1]:
        print(f"{name:<{wide}}  " + "  ->  ".join(column[name] for column in columns))
    for arrow in house.against(FLOORS):
        print(f"up: {arrow}")


if __name__ == "__main__":
    main()
