"""Packages that are not installed, and what to type to have them: an extra of a distribution, where one brings them."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, entry_points, requires

from ..errors import PluginError

GROUP = "dipp"
"""The entry-point group in which distributions name their plugins."""

TOOLKIT = "dipp-toolkit"
DISTRIBUTIONS = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "google": "protobuf",
    "open_clip": "open_clip_torch",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Distributions whose modules have another name; nothing else maps those that are not installed."""
REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*).*?;.*\bextra\s*==\s*['\"]([^'\"]+)['\"]")


def missing_of(modules: Iterable[str]) -> list[str]:
    """Those of some top-level modules that are not installed, in order."""
    return [module for module in modules if importlib.util.find_spec(module) is None]


def how_to_install(modules: Iterable[str], *, distribution: str = TOOLKIT, extra: str = "") -> str:
    """What to type for modules that are not installed: `pip install 'dipp-toolkit[rewards]'`.

    Args:
        modules: names as they are imported.
        distribution: whose extras are looked through before those of the toolkit.
        extra: the one to name where several bring what is missing.

    Returns:
        The command, with the fewest extras, and with the names of those distributions that no extra brings.
    """
    names = (DISTRIBUTIONS.get(module, module) for module in modules)
    wanted = {_plain(name): name for name in names}
    words: list[str] = []
    for place in dict.fromkeys((distribution, TOOLKIT)):
        chosen: list[str] = []
        extras = extras_of(place)
        while wanted:
            best = max(extras, key=lambda name: (len(extras[name] & wanted.keys()), name == extra), default="")
            if not best or not extras[best] & wanted.keys():
                break
            chosen.append(best)
            wanted = {plain: name for plain, name in wanted.items() if plain not in extras[best]}
        words += [f"'{place}[{','.join(chosen)}]'"] if chosen else []
    return " ".join(["pip install", *words, *wanted.values()])


def not_installed(what: str, modules: Iterable[str], *, distribution: str = TOOLKIT, extra: str = "") -> PluginError:
    """The error of something that needs modules which are not installed.

    Args:
        what: needs them, as a sentence begins: "The reward 'hps' needs".
        modules: those that are missing.
        distribution: as `how_to_install`.
        extra: as `how_to_install`.
    """
    modules = list(modules)
    verb = "is" if len(modules) == 1 else "are"
    return PluginError(
        f"{what} {' and '.join(modules)}, which {verb} not installed. Run: "
        + how_to_install(modules, distribution=distribution, extra=extra)
    )


def extras_of(distribution: str) -> Mapping[str, frozenset[str]]:
    """The distributions that each extra of a distribution brings, as its metadata say; none where it is not there."""
    try:
        lines = requires(distribution) or []
    except PackageNotFoundError:  # run from its sources
        return {}
    extras: dict[str, set[str]] = {}
    for line in lines:
        match = REQUIREMENT.match(line)
        if match:
            extras.setdefault(match.group(2), set()).add(_plain(match.group(1)))
    return {name: frozenset(names) for name, names in extras.items()}


def distribution_of(plugin: str, group: str) -> str:
    """The distribution that brings a plugin; the toolkit's name where none is known."""
    points = (point for point in entry_points(group=group) if point.name == plugin and point.dist is not None)
    return next((str(point.dist.name) for point in points if point.dist is not None), TOOLKIT)


def _plain(name: str) -> str:
    """A distribution's name as the index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
