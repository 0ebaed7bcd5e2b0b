"""What a reward's or metric's numbers depend on beside its name: its code with what that imports, and what it holds."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..protocols import Identified
from ..utils.content_digests import file_digest
from ..utils.fingerprint import shipped_packages, source_file

NAMED_BY_VERSION = frozenset(
    {"PIL", "diffusers", "numpy", "open_clip", "safetensors", "scipy", "timm", "torch", "torchvision", "transformers"}
)
"""Libraries whose code is not read, whoever is made of it."""
DEVICE = re.compile(r"(cpu|mps|meta|(cuda|xpu)(:\d+)?)")
DEEPEST, MOST = 8, 20_000
"""How far, and into how many values, an object is followed."""


def identity_of(thing: Any) -> str:
    """SHA-256 of an object's own code and of what it holds: numbers, texts, networks' weights, files that it names.

    Own code is the module of the object and all that it imports, libraries excepted. The same object has the same
    identity in another process and on another machine, wherever its files lie and its networks are, and before use as
    after it: what `functools.cached_property` keeps is left out, and so is what a class names in `memories`, a tuple
    of its attributes that hold nothing but results of the others.

    Args:
        thing: a reward, a metric, or a function; a reward in another process, or one that says what it is, is asked.

    Raises:
        RunError: it does not answer.
    """
    from .remote.proxy import ProxyReward

    if isinstance(thing, ProxyReward):
        return thing.identity()
    if isinstance(thing, Identified):
        return thing.score_identity()
    contents = _Contents()
    contents.add(thing, 0)
    return _sha([contents.digest.hexdigest(), sorted(_digests_of_code(contents.modules, thing).values())])


def code_digest(thing: Any) -> str:
    """SHA-256 of an object's own code; empty where it is the toolkit's and libraries' alone."""
    contents = _Contents(tensors=False)
    contents.add(thing, 0)
    digests = [*_digests_of_code(contents.modules, thing).values(), *contents.without_file]
    return _sha(sorted(digests)) if digests else ""


class _Contents:
    """A digest of values, and the modules whose code they are made of.

    Args:
        tensors: whether the bytes of tensors are read.
    """

    def __init__(self, tensors: bool = True) -> None:
        self.tensors = tensors
        self.digest = hashlib.sha256()
        self.modules: dict[str, None] = {}
        self.without_file: list[str] = []
        """Digests of functions whose code is in no file, such as a notebook's."""
        self._met: dict[int, Any] = {}

    def say(self, *words: object) -> None:
        self.digest.update(json.dumps([str(word) for word in words]).encode())

    def add(self, value: Any, depth: int) -> None:
        """Take a value in. What holds no content of its own counts by its class."""
        if value is None or isinstance(value, (bool, int, float, complex, bytes)):
            self.say(type(value).__name__, repr(value))
        elif isinstance(value, (str, Path)):
            self._text(value)
        elif isinstance(value, (torch.device, type(NotImplemented))):
            self.say("device")
        elif id(value) in self._met or depth > DEEPEST or len(self._met) > MOST:
            self.say("again", type(value).__qualname__)
        else:
            self._met[id(value)] = value  # kept, so that no other value takes its place in memory
            self._structure(value, depth + 1)

    def _text(self, value: str | Path) -> None:
        text = str(value)
        if DEVICE.fullmatch(text):
            self.say("device")
            return
        with suppress(OSError, ValueError, RuntimeError):  # no name that a file could have
            path = Path(text).expanduser()
            if path.is_file():
                self.say("file", file_digest(path))
                return
            if path.is_absolute() and path.is_dir():
                text = path.name
        self.say("text", text)

    def _structure(self, value: Any, depth: int) -> None:
        if isinstance(value, nn.Module):
            self._network(value, depth)
        elif isinstance(value, torch.Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray):
            self.say("array", value.dtype, value.shape)
            self.digest.update(np.ascontiguousarray(value).tobytes() if value.dtype != object else b"")
        elif isinstance(value, (Mapping, list, tuple, set, frozenset)):
            self._container(value, depth)
        elif isinstance(value, types.ModuleType):
            self.modules[value.__name__] = None
            self.say("module")
        elif isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            self._function(value, depth)
        elif isinstance(value, type):
            self._class(value)
        else:
            self._object(value, depth)

    def _container(self, value: Any, depth: int) -> None:
        self.say(type(value).__name__, len(value))
        if isinstance(value, (set, frozenset)):
            self.say(*sorted(map(repr, value)))
            return
        items = value
        if isinstance(value, Mapping):
            items = [part for key in sorted(value, key=repr) for part in (key, value[key])]
        for item in items:
            self.add(item, depth)

    def _network(self, network: nn.Module, depth: int) -> None:
        for module in network.modules():
            self._class(type(module))
            if self._is_followed(type(module)):
                held = {name: value for name, value in _held(module).items() if not name.startswith("_")}
                self.add(held, depth)
        for name, tensor in sorted(network.state_dict().items()):
            self.say(name)
            if isinstance(tensor, torch.Tensor):
                self._tensor(tensor)

    def _tensor(self, tensor: torch.Tensor) -> None:
        self.say("tensor", tensor.dtype, tuple(tensor.shape))
        if self.tensors and tensor.layout == torch.strided and not tensor.is_meta:
            values = tensor.detach().cpu().contiguous().reshape(-1)
            self.digest.update(values.view(torch.uint8).numpy().tobytes())

    def _function(self, function: Any, depth: int) -> None:
        if isinstance(function, functools.partial):
            self.add([function.func, function.args, function.keywords], depth)
            return
        if isinstance(function, types.MethodType):
            self.add(function.__self__, depth)
            function = function.__func__
        if not isinstance(function, types.FunctionType):
            self.say(getattr(function, "__qualname__", ""))
            return
        self.modules[function.__module__] = None
        self.say("function", function.__qualname__)
        kind = _kind(function.__module__, source_file(function.__module__))
        if _is_typed_in(function, kind):
            self.without_file.append(_sha(_instructions(function.__code__)))
            self.say(self.without_file[-1])
        elif kind not in ("own", "ours"):
            return
        self.add([function.__defaults__, function.__kwdefaults__, vars(function)], depth)
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # empty as yet
                self.add(cell.cell_contents, depth)
        for name in sorted(_names(function.__code__)):
            if name in function.__globals__:
                self.add(function.__globals__[name], depth)

    def _class(self, kind: type) -> None:
        self.say("class", kind.__qualname__)
        self.modules |= dict.fromkeys(parent.__module__ for parent in kind.__mro__)

    def _object(self, value: Any, depth: int) -> None:
        from .loading import FunctionReward

        if isinstance(value, FunctionReward):  # its name says where the file lies
            self.add(value.function, depth)
            return
        self._class(type(value))
        if self._is_followed(type(value)):
            self.add(_held(value), depth)
            for method in vars(type(value)).values():
                if isinstance(method, types.FunctionType):
                    self.add(method, depth)

    def _is_followed(self, kind: type) -> bool:
        """Whether what an object of this class holds is its own, and not the workings of a library known by version."""
        return _kind(kind.__module__, source_file(kind.__module__)) in ("own", "ours", "library") and (
            kind.__module__.split(".")[0] not in NAMED_BY_VERSION
        )


def _held(value: Any) -> dict[str, Any]:
    """An object's attributes without what it only remembers; see `identity_of`."""
    kind = type(value)
    memories = getattr(kind, "memories", ())
    memories = memories if isinstance(memories, tuple) else ()
    return {
        name: held
        for name, held in getattr(value, "__dict__", {}).items()
        if name not in memories and not isinstance(getattr(kind, name, None), functools.cached_property)
    }


def _instructions(code: types.CodeType) -> list[Any]:
    """What a function does, wherever it was written down: its instructions, the names and the constants they use."""
    constants = [
        _instructions(constant)
        if isinstance(constant, types.CodeType)
        else sorted(map(repr, constant))  # whose order is another one in every process
        if isinstance(constant, frozenset)
        else repr(constant)
        for constant in code.co_consts
    ]
    return [code.co_code.hex(), list(code.co_names), list(code.co_varnames), constants]


def _is_typed_in(function: types.FunctionType, kind: str) -> bool:
    """Whether a function's code is in no file, as in a notebook, whose cells are of the module `__main__`."""
    if kind == "none":
        return function.__module__ not in sys.stdlib_module_names
    return function.__module__ == "__main__" and not Path(function.__code__.co_filename).is_file()


def _names(code: types.CodeType) -> set[str]:
    """Global names that a function and those inside it read."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _kind(module: str, path: Path | None) -> str:
    """Whose code a module is: `own`, the toolkit's (`ours`), a `library`'s, Python's (`standard`), or `none` at all."""
    if path is None:
        return "none"
    if module.split(".", maxsplit=1)[0] in shipped_packages():
        return "ours"
    if {"site-packages", "dist-packages"} & set(path.parts):
        return "library"
    return "standard" if _standard() in path.parents else "own"


@cache
def _standard() -> Path:
    return Path(sysconfig.get_path("stdlib")).resolve()


def _package_of(thing: Any) -> str:
    """The package that a function, or an object's class, is of."""
    function = getattr(thing, "function", thing)  # of a plain function as a reward
    function = function if hasattr(function, "__qualname__") else type(function)
    return str(function.__module__).split(".", maxsplit=1)[0]


def _digests_of_code(modules: Mapping[str, None], thing: Any) -> dict[str, str]:
    """Digests by file of these modules and of all own code that they import; of a library, where the thing is of it."""
    library = {_package_of(thing)} - NAMED_BY_VERSION
    return _digests_from(list(modules), library)


def source_digest(path: Path) -> str:
    """SHA-256 of a Python file and of all own code that it imports, as far as that is found without running it.

    Raises:
        OSError: the file cannot be read.
    """
    others = _digests_from(list(_imports("", path)), frozenset(), path.resolve().parent)
    return _sha([file_digest(path), *sorted(others.values())])


def _digests_from(modules: list[str], library: Set[str], beside: Path | None = None) -> dict[str, str]:
    digests: dict[str, str] = {}
    todo, visited = modules, set(modules)
    while todo:
        name = todo.pop()
        path = source_file(name, beside)
        kind = _kind(name, path)
        if path is None or not (kind == "own" or (kind == "library" and name.split(".")[0] in library)):
            continue
        with suppress(OSError):
            digests[str(path)] = file_digest(path)
            others = set(_imports(name, path)) - visited
            visited |= others
            todo += others
    return digests


def _imports(module: str, path: Path) -> Iterator[str]:
    """Modules that a file's import statements may mean, packages around them included."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):  # no Python, such as a compiled module
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names = [start, *(f"{start}.{alias.name}" for alias in node.names)]
        for name in filter(None, names):
            parts = name.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
