"""The registry: what the installed plugins offer, by kind and name. Building it imports plugins and nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from . import hooks
from .errors import DippError, PluginError, RequestError
from .utils.exception_text import raised
from .utils.imports import check_options, import_attribute
from .utils.licences import Origin
from .utils.messages import shown, unknown_name
from .utils.packages import GROUP, distribution_of, how_to_install, missing_of, not_installed
from .utils.setting_layers import flatten

KINDS = (
    "pipeline", "blueprint", "reference", "generator", "reward", "environment", "term", "prompts", "metric", "recipe",
)  # fmt: skip
_HOOKS = {kind: f"dipp_register_{kind if kind == 'prompts' else kind + 's'}" for kind in KINDS}
GIVEN = "given in Python"
"""Stands where a plugin's name does, of an object that somebody gave to a run."""


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        kind: one of `KINDS`.
        name: what people type.
        factory: a callable, or `"module:attribute"`.
        summary: one line.
        needs: packages the factory imports.
        plugin: the plugin that registered it.
        defaults: settings recommended with it.
        origin: the repository its weights are published in, and their licence; None where it is unknown.
        described: a class that says what one should know of a reward, where that is not the factory, or its place.
    """

    kind: str
    name: str
    factory: Callable[..., Any] | str
    summary: str
    needs: tuple[str, ...]
    plugin: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None
    described: Any = None

    @property
    def missing(self) -> list[str]:
        """Needed packages that are not installed."""
        return missing_of(self.needs)

    @property
    def how_to_install(self) -> str:
        """What to type for the missing packages; empty where none is missing."""
        if not self.missing:
            return ""
        return how_to_install(self.missing, distribution=distribution_of(self.plugin, GROUP), extra=f"{self.kind}s")

    @property
    def attribute(self) -> Any:
        """The factory itself, imported where it is named.

        Raises:
            PluginError: it cannot be imported.
        """
        return self._imported(self.factory)

    @property
    def description(self) -> Any:
        """What says what one should know of it, imported where it is named: `described`, else the factory.

        Raises:
            PluginError: it cannot be imported.
        """
        return self.attribute if self.described is None else self._imported(self.described)

    def _imported(self, named: Any) -> Any:
        if isinstance(named, str):
            return import_attribute(named, f"the {self.kind} '{self.name}' of the plugin '{self.plugin}'")
        return named

    def find_factory(self, options: Iterable[str] = ()) -> Callable[..., Any]:
        """The factory, imported and not called.

        Args:
            options: names of what it will be called with.

        Raises:
            PluginError: a needed package is missing, the factory cannot be imported, or it does not take these options.
        """
        if self.missing:
            needs = f"The {self.kind} '{self.name}' needs"
            raise not_installed(
                needs, self.missing, distribution=distribution_of(self.plugin, GROUP), extra=f"{self.kind}s"
            )
        factory = self.attribute
        if options:
            check_options(factory, options, f"{self.kind} '{self.name}'")
        return factory

    def build(self, *args: Any, **options: Any) -> Any:
        """Call the factory.

        Raises:
            PluginError: see `find_factory`.
        """
        return self.find_factory(options)(*args, **options)


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that could not be used, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"The plugin '{shown(self.name)}' is broken and was skipped: {shown(self.reason).rstrip('.')}."


@dataclass
class Registry:
    """Names by kind, the plugins that gave them, and the plugins that failed.

    Attributes:
        manager: the pluggy manager; its `hook` calls the run's events.
        entries: by kind, then by name.
        broken: plugins that were skipped.
    """

    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(hooks.PROJECT))
    entries: dict[str, dict[str, Entry]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    broken: list[BrokenPlugin] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.manager.add_hookspecs(hooks)

    def add_plugin(self, name: str, load: Callable[[], Any]) -> None:
        """Import a plugin and take what it registers; on failure record why and register nothing of it."""
        try:
            module = load()
            self.manager.register(module, name)
            self.manager.check_pending()
            self._take(name, module)
        except Exception as error:  # noqa: BLE001 -- a broken plugin, whatever it raises, must not affect the others
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            for names in self.entries.values():
                for entry in [entry for entry in names.values() if entry.plugin == name]:
                    del names[entry.name]
            reason = str(error) if isinstance(error, DippError) else raised(error)
            self.broken.append(BrokenPlugin(name, reason))

    def _take(self, plugin: str, module: Any) -> None:
        for kind, hook in _HOOKS.items():

            def register(
                name: str,
                factory: Any,
                *,
                summary: str = "",
                needs: tuple[str, ...] = (),
                defaults: Mapping[str, Any] | None = None,
                origin: Origin | None = None,
                described: Any = None,
                kind: str = kind,
            ) -> None:
                if name in self.entries[kind]:
                    raise PluginError(
                        f"the {kind} '{name}' is already registered by the plugin '{self.entries[kind][name].plugin}'"
                    )
                self.entries[kind][name] = Entry(
                    kind, name, factory, summary, tuple(needs), plugin, flatten(defaults or {}), origin, described
                )

            others = [plugin_module for plugin_module in self.manager.get_plugins() if plugin_module is not module]
            self.manager.subset_hook_caller(hook, others)(register=register)

    @contextmanager
    def lent(self, entries: Iterable[Entry]) -> Iterator[None]:
        """Inside this context these names exist as well; none of them may be taken."""
        added: list[Entry] = []
        try:
            for entry in entries:
                if entry.name in self.entries[entry.kind]:
                    raise RequestError(f"The {entry.kind} '{entry.name}' exists already; give yours another name.")
                self.entries[entry.kind][entry.name] = entry
                added.append(entry)
            yield
        finally:
            for entry in added:
                del self.entries[entry.kind][entry.name]

    def find(self, kind: str, name: str) -> Entry:
        """The entry of this kind and name.

        Raises:
            RequestError: the name is unknown; the message names the nearest.
        """
        if name not in self.entries[kind]:
            raise self.unknown(name, kind)
        return self.entries[kind][name]

    def unknown(self, name: str, *kinds: str) -> RequestError:
        """The error for an unknown name: the nearest ones, those that exist, and the broken plugins that may have it.

        Args:
            name: as typed.
            kinds: of `KINDS`, what it could have been.
        """
        names = [entry_name for kind in kinds for entry_name in self.entries[kind]]
        what = " or ".join("prompt set" if kind == "prompts" else kind for kind in kinds)
        if kinds == ("generator",) and name in self.entries["reference"]:
            students = [
                entry.name for entry in self.entries["generator"].values() if entry.defaults.get("reference") == name
            ]
            named = f"Generators that are trained against it: {', '.join(sorted(students))}. " if students else ""
            return RequestError(
                f"'{name}' is a multi-step reference, not a one-step generator. {named}To distil it into one, "
                f"name it with --reference {name} and no --generator."
            )
        if kinds == ("reference",) and name in self.entries["generator"]:
            return RequestError(
                f"'{name}' is a one-step generator, not a multi-step reference. Name it with --generator."
            )
        return RequestError(" ".join([unknown_name(what, name, dict.fromkeys(names)), *map(str, self.broken)]))

    def __iter__(self) -> Iterator[Entry]:
        for names in self.entries.values():
            yield from names.values()


def discover(points: Iterable[EntryPoint]) -> Registry:
    """A registry of the plugins these entry points name, built-in ones first so that their names cannot be taken."""
    registry = Registry()
    for point in sorted(points, key=lambda point: (getattr(point.dist, "name", "") != "dipp-toolkit", point.name)):
        if not registry.manager.has_plugin(point.name):
            registry.add_plugin(point.name, point.load)
    return registry


@cache
def get_registry() -> Registry:
    """The registry of all installed plugins, built once."""
    return discover(list(entry_points(group=GROUP)))  # from Python 3.12 on, [number] is no index of EntryPoints
