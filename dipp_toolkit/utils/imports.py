"""A user's own Python file as a plugin: `./my_reward.py:blue`, or an importable `module:name`."""

from __future__ import annotations

import importlib.util
import inspect
import operator
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

from ..errors import PluginError, RequestError
from .exception_text import raised
from .messages import nearest, quoted, shown, unknown_name
from .option_types import annotations_of, expected_instead
from .packages import how_to_install
from .paths import user_path

MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_python_name(name: str) -> bool:
    """Whether a name means a file or a module (`x.py:f`, `package.module:f`) and not what a plugin registered."""
    path, _, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    if path.endswith(".py"):
        return True
    acceptedmodule = MODULE.fullmatch(path) is not None and MODULE.fullmatch(attribute) is not None
    return acceptedmodule and path not in ("diffusers", "http", "https")


def find_python_file(name: str, what: str) -> tuple[Path, str] | None:
    """The file and the attribute of `file.py:attribute`; None where a name means an importable module.

    Raises:
        PluginError: there is no such file.
    """
    path_text, _, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    if not path_text.endswith(".py"):
        return None
    path = user_path(path_text)
    if not path.is_file():
        raise PluginError(f"There is no file {path} for the {what} '{name}' (looked in {path.parent.resolve()}).")
    return path, attribute


def load_python_name(name: str, what: str) -> Any:
    """The object that `file.py:attribute` or `module:attribute` names.

    Args:
        name: as typed.
        what: what it is for, "reward" say; used in messages.

    Raises:
        PluginError: the file is missing, does not import, or lacks the attribute.
    """
    file = find_python_file(name, what)
    if file is None:
        return import_attribute(name, f"the {what} '{name}'")
    path, attribute = file
    module_name = f"dipp_user_{path.stem}_{abs(hash(path.resolve())):x}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        text = f" ({error.text.strip()})" if error.text else ""
        raise PluginError(
            f"The {what} file {error.filename or path} has a syntax error in line {error.lineno}: {error.msg}{text}."
        ) from error
    except (Exception, SystemExit) as error:  # anybody's code: a script's sys.exit() as well
        raise PluginError(f"The {what} file {path} failed to import with {raised(error)}.") from error
    functions = [
        key
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module_name
    ]
    if not attribute and len(functions) == 1:
        attribute = functions[0]
    if not attribute and not functions:
        raise PluginError(f"The {what} file {path} defines no function and no class; expected the {what} in it.")
    if not attribute:
        raise PluginError(f"Say which {what} of {path} to use: {path}:NAME, with NAME one of {', '.join(functions)}.")
    if not hasattr(module, attribute):
        guess = nearest(attribute, functions)
        hint = f" Did you mean '{guess}'?" if guess else f" It defines {', '.join(functions) or 'no function'}."
        raise PluginError(f"The file {path} defines no '{attribute}'.{hint}")
    return getattr(module, attribute)


def find_in_python(name: str, what: str, options: Mapping[str, Any]) -> Callable[[], Any]:
    """What makes what a Python name means: a class, or a function, is called; anything else is the object itself.

    Args:
        name: `file.py:Name` or `module:Name`.
        what: what it is for, "metric" say; used in messages.
        options: of the class or function.

    Raises:
        PluginError: the file cannot be used.
        RequestError: it does not take these options, or lacks one.
    """
    named = load_python_name(name, what)
    if not (inspect.isclass(named) or inspect.isroutine(named)):
        if options:
            raise RequestError(f"The {what} '{name}' is an object already and takes no options; make it a class.")
        return lambda: named
    check_options(named, options, f"{what} '{name}'")
    try:
        inspect.signature(named).bind(**options)
    except TypeError as error:
        raise RequestError(f"The {what} '{name}' cannot be made of the options given: {error}.") from None
    return partial(named, **options)


def make_from_python(name: str, what: str, options: Mapping[str, Any]) -> Any:
    """What `find_in_python` finds, made.

    Raises:
        PluginError: the file cannot be used.
        RequestError: it does not take these options, or lacks one.
    """
    return find_in_python(name, what, options)()


def check_call(function: Any, arguments: tuple[str, ...], what: str) -> None:
    """Refuse a callable that cannot be called with these positional arguments.

    Raises:
        PluginError: it is not callable or its signature does not fit.
    """
    wanted = f"{what.split(maxsplit=1)[0]}({', '.join(arguments)})"
    if not callable(function):
        raise PluginError(
            f"The {what} is a {type(function).__name__}; expected a function of ({', '.join(arguments)})."
        )
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        signature = inspect.signature(function)
        raise PluginError(
            f"The {what} has the signature {signature}; expected a function that can be called as {wanted}."
        ) from None


def check_parts(made: Any, name: str, what: str, parts: Sequence[str]) -> Any:
    """Refuse an object that lacks one of these attributes; returns it.

    Raises:
        PluginError: the message names them.
    """
    # Looked for without calling properties: a network may be loaded on first access.
    missing = [part for part in parts if inspect.getattr_static(made, part, None) is None and not hasattr(made, part)]
    if missing:
        raise PluginError(
            f"The {what} '{name}' is a {type(made).__name__} without {', '.join(missing)}; expected an object with "
            f"{', '.join(parts)}."
        )
    return made


def check_options(factory: Callable[..., Any], options: Iterable[str], what: str) -> None:
    """Refuse options that a factory does not take, naming those it does, and values of another type than it says.

    Args:
        factory: that will be called with them.
        options: their names, or a mapping from these to values, which are then looked at as well: see
            `option_types.expected_instead`.
        what: the factory makes, for messages: `"reward 'hps'"`.

    Raises:
        RequestError: an option is unknown, or its value is of a wrong type.
    """
    parameters = inspect.signature(factory).parameters
    accepted = [
        parameter.name
        for parameter in parameters.values()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for option in options:
            if option not in accepted:
                names = (
                    unknown_name("option", option, accepted) if accepted else f"It takes none; got '{shown(option)}'."
                )
                raise RequestError(f"The {what} takes no such option. {names}")
    if not isinstance(options, Mapping) or not options:
        return
    annotations = annotations_of(factory)
    for option in accepted:
        value = options.get(option, parameters[option].default)
        wanted = expected_instead(value, annotations[option]) if option in annotations else ""
        if wanted and value is not parameters[option].default:
            raise RequestError(f"The option {option} of the {what} is {quoted(value)}; expected {wanted}.")


def made_by(factory: Callable[..., Any]) -> Any:
    """The class that a factory makes, as far as it says so; None where it does not."""
    owner = getattr(factory, "__self__", factory)
    if isinstance(owner, type):
        return owner
    try:
        return get_type_hints(factory).get("return")
    except (NameError, AttributeError, TypeError, SyntaxError):  # what it makes is checked once it is made
        return None


def import_attribute(path: str, what: str) -> Any:
    """Import `"module:attribute"`; the attribute may be dotted, as in `"module:Class.build"`.

    Raises:
        PluginError: it cannot be imported; the message says what for and why.
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a script's sys.exit() as well
        hint = f" Run: {how_to_install([error.name])}" if isinstance(error, ModuleNotFoundError) and error.name else ""
        raise PluginError(
            f"Cannot load {what}: importing {shown(module_name)} failed with {raised(error)}.{hint}"
        ) from error
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError:
        raise PluginError(f"Cannot load {what}: {shown(module_name)} has no '{shown(attribute)}'.") from None
