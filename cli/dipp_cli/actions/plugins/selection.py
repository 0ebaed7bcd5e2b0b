"""Which registered things a name on the command line means, and where a plugin was installed from."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, entry_points

from dipp_toolkit.errors import RequestError
from dipp_toolkit.registry import BrokenPlugin, Entry, Registry
from dipp_toolkit.utils.messages import nearest, shown
from dipp_toolkit.utils.packages import GROUP, TOOLKIT


@dataclass(frozen=True)
class Selection:
    """What names mean.

    Attributes:
        entries: registered things of these names, and all of the plugins of these names.
        plugins: the plugins among the names.
        broken: those of them that were skipped.
    """

    entries: tuple[Entry, ...]
    plugins: tuple[str, ...]
    broken: tuple[BrokenPlugin, ...]


def select(registry: Registry, name: str) -> Selection:
    """What a name means: everything that is registered by it, or that the plugin of this name registers.

    A plugin may have the name of what it registers, and two kinds the same name.

    Raises:
        RequestError: nothing has this name; the message names the nearest.
    """
    entries = tuple(entry for entry in registry if name in (entry.name, entry.plugin))
    broken = tuple(broken for broken in registry.broken if broken.name == name)
    plugins = (name,) if name in plugin_names(registry) else ()
    if not entries and not plugins:
        names = [*plugin_names(registry), *(entry.name for entry in registry)]
        guess = nearest(name, names)
        hint = f"Did you mean '{guess}'?" if guess else "dipp plugins lists all names."
        also = "".join(f" {broken}" for broken in registry.broken)
        raise RequestError(f"Nothing is installed by the name '{shown(name)}'. {hint}{also}")
    return Selection(entries, plugins, broken)


def plugin_names(registry: Registry) -> list[str]:
    """The plugins that were found, those that are broken included."""
    found = [name for name, _ in registry.manager.list_name_plugin()]
    return list(dict.fromkeys([*found, *(broken.name for broken in registry.broken)]))


def origin_of(plugin: str) -> tuple[str, Distribution | None]:
    """The module that an installed plugin is, and the distribution that brings it; empty and None where unknown."""
    point = next((point for point in entry_points(group=GROUP) if point.name == plugin), None)
    if point is None or point.dist is None:
        return "" if point is None else point.value, None
    try:
        return point.value, distribution(str(point.dist.name))
    except PackageNotFoundError:  # gone since
        return point.value, None


def is_own(plugin: str) -> bool:
    """Whether a plugin comes with the toolkit."""
    found = origin_of(plugin)[1]
    return found is not None and found.name == TOOLKIT
