"""What `dipp plugins new` does: write a project of a plugin, an installable package with tests."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipp_toolkit import __version__
from dipp_toolkit.errors import RequestError
from dipp_toolkit.registry import Registry, get_registry
from dipp_toolkit.utils.atomic import whole_folder
from dipp_toolkit.utils.messages import shown, unknown_name
from dipp_toolkit.utils.paths import check_folder_place, user_path

from ...terminal.output import print_json, print_line
from .listing import KINDS_BY_WORD

if TYPE_CHECKING:
    import jinja2

NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
LONGEST = 32
"""Letters of a name."""
PREFIX = "dipp-"
"""What a distribution's name begins with, and with an underscore its module's."""


@dataclass(frozen=True)
class Template:
    """What is particular to a kind.

    Attributes:
        what: it is, with its article.
        summary: of what is written, a line for listings.
        use: commands that use it.
        change: what to change first.
        hook: that registers it.
        factory: that is registered, `{}` being the class's name.
        needs: packages that it imports.
        defaults: settings that it recommends, as Python writes them.
        rivals: kinds in which its name must be free.
    """

    what: tuple[str, str]
    summary: str
    use: tuple[str, ...]
    change: str
    hook: str
    factory: str = "{}"
    needs: tuple[str, ...] = ("torch",)
    defaults: Mapping[str, str] = field(default_factory=dict)
    rivals: tuple[str, ...] = ()


WORLD = {
    "reference": '"emoji-reference"',
    "prompts": '"emoji-train"',
    "eval_prompts": '"emoji-heldout"',
    "judge": '"emoji-judge"',
    "reference_steps": "25",
}
MODELS = ("generator", "reference")
TEMPLATES: Mapping[str, Template] = {
    "reward": Template(
        ("A", "reward"),
        "how bright an image is",
        ("dipp train --reward NAME --pull 1 --steps 2",),
        "The score is the last line of `reward.py`: a function of images that torch can differentiate.\n"
        "Say in the class's attributes what people should know of it.",
        "dipp_register_rewards",
    ),
    "generator": Template(
        ("A", "generator"),
        "a few convolutions for the emoji world",
        ("dipp train --generator NAME --reward emoji-preference --steps 2",),
        "`Network` is what is trained; put yours there. The registration recommends the reference whose latents\n"
        "it makes.",
        "dipp_register_generators",
        needs=("torch", "safetensors"),
        defaults=WORLD,
        rivals=MODELS,
    ),
    "reference": Template(
        ("A", "reference"),
        "a diffusers pipeline",
        ("dipp distill --reference NAME --steps 2",),
        "`PIPELINE` is the emoji world's until you name yours. The registration recommends prompts and guidance.",
        "dipp_register_references",
        factory="load",
        needs=("diffusers", "transformers"),
        defaults={
            **{name: value for name, value in WORLD.items() if name != "reference"},
            "guidance": "2.0",
            "reference_guidance": "2.0",
        },
        rivals=MODELS,
    ),
    "term": Template(
        ("A", "term of the objective"),
        "the integral KL divergence, times a number",
        ("dipp verify --term NAME --case distillation", "dipp train --term NAME --steps 2"),
        "`__call__` is the formula and `closed_form` what it comes to on Gaussian laws: change both together.",
        "dipp_register_terms",
        factory="{}.build",
    ),
    "metric": Template(
        ("A", "metric"),
        "mean brightness of the images",
        ("dipp bench --generators emoji-onestep --prompts 'emoji-heldout?count=4' --metrics NAME --out bench-NAME",),
        "`features` keeps numbers of each image, `values` makes figures of them.",
        "dipp_register_metrics",
    ),
    "prompts": Template(
        ("A", "prompt set"),
        "a few emoji to draw",
        ("dipp train --prompts NAME --steps 2",),
        "The prompts stand in `TEXTS`, by category.",
        "dipp_register_prompts",
        factory="load",
        needs=(),
    ),
}


@dataclass(frozen=True)
class Project:
    """A project that is to be written.

    Attributes:
        kind: one of `TEMPLATES`.
        name: that is registered; the plugin's too.
    """

    kind: str
    name: str

    @property
    def distribution(self) -> str:
        """What is installed."""
        return f"{PREFIX}{self.name}"

    @property
    def module(self) -> str:
        """What is imported."""
        return self.distribution.replace("-", "_")

    @property
    def class_name(self) -> str:
        """The name's words and the kind's, each with a capital."""
        words = [word.capitalize() for word in self.name.split("-")]
        return "".join(words if words[-1].lower() == self.kind else [*words, self.kind.capitalize()])

    @property
    def commands(self) -> list[str]:
        """What uses it."""
        return [line.replace("NAME", self.name) for line in TEMPLATES[self.kind].use]

    def files(self) -> dict[str, str]:
        """The texts of all files, by their places in the project."""
        template = TEMPLATES[self.kind]
        article, what = template.what
        values = {
            "kind": self.kind, "name": self.name, "distribution": self.distribution, "module": self.module,
            "class_name": self.class_name, "article": article, "what": what, "summary": template.summary,
            "use": self.commands, "change": template.change, "hook": template.hook, "needs": template.needs,
            "factory": template.factory.format(self.class_name), "defaults": template.defaults,
            "version": __version__,
        }  # fmt: skip
        names = {
            "pyproject.toml": "pyproject.toml",
            "README.md": "README.md",
            ".gitignore": "gitignore",
            f"{self.module}/__init__.py": "init.py",
            f"{self.module}/{self.kind}.py": f"{self.kind}.py",
            "tests/test_NAME.py".replace("NAME", self.module): f"test_{self.kind}.py",
        }
        texts = {place: _environment().get_template(f"{name}.jinja").render(values) for place, name in names.items()}
        return {**texts, f"{self.module}/py.typed": ""}


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("dipp_cli", "templates/plugin"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )


def find_kind(word: str) -> str:
    """The kind that a word names, in the singular or the plural.

    Raises:
        RequestError: there is no template of it.
    """
    kind = KINDS_BY_WORD.get(word.lower(), word)
    if kind in TEMPLATES:
        return kind
    if kind in KINDS_BY_WORD:
        raise RequestError(
            f"A {kind} has no template; expected one of {', '.join(TEMPLATES)}. "
            "docs/guide/writing-a-plugin.md says how one is registered."
        )
    raise RequestError(unknown_name("kind of plugin", word, TEMPLATES))


def check_name(kind: str, name: str, registry: Registry) -> None:
    """Refuse a name that cannot be a distribution's and a module's, or that something else has.

    Raises:
        RequestError: what is wrong with it, and a name that would do.
    """
    if len(name) > LONGEST or not NAME.fullmatch(name):
        raise RequestError(
            f"'{shown(name)}' cannot be the name of a plugin; expected small letters and digits with hyphens between "
            f"words, a letter first, at most {LONGEST}, such as '{_usable(name)}'."
        )
    if name.startswith(PREFIX):
        raise RequestError(
            f"The name stands without '{PREFIX}', which the distribution's has of itself: "
            f"dipp plugins new {kind} {name.removeprefix(PREFIX)}"
        )
    other = f"Choose another name, such as '{_free(kind, name, registry)}'."
    for rival in TEMPLATES[kind].rivals or (kind,):
        if name in registry.entries[rival]:
            plugin = registry.entries[rival][name].plugin
            what = "prompt set" if rival == "prompts" else rival
            raise RequestError(f"There is a {what} '{name}' already, of the plugin '{plugin}'. {other}")
    taken = _taken(name, registry)
    if taken:
        raise RequestError(f"{taken} {other}")


def _taken(name: str, registry: Registry) -> str:
    """What is installed by the names that a plugin would have; empty where they are free."""
    project = Project("reward", name)
    if registry.manager.has_plugin(name) or any(broken.name == name for broken in registry.broken):
        return f"A plugin '{name}' is installed already."
    if importlib.util.find_spec(project.module) is not None:
        return f"A module '{project.module}' is installed already."
    try:
        distribution(project.distribution)
    except PackageNotFoundError:
        return ""
    return f"A distribution '{project.distribution}' is installed already."


def _usable(name: str) -> str:
    """The name that was probably meant, as it may be."""
    words = re.findall("[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower())
    plain = "-".join(words).lstrip("0123456789-")[:LONGEST].rstrip("-")
    return plain if NAME.fullmatch(plain) else "my-plugin"


def _free(kind: str, name: str, registry: Registry) -> str:
    for start in ("my", "own", "other"):
        found = f"{start}-{name}"[:LONGEST].rstrip("-")
        if found not in registry.entries[kind] and not _taken(found, registry):
            return found
    return "my-plugin"


def write(word: str, name: str, out: Path | None, as_json: bool) -> None:
    """Write a project, whole or not at all, and say what to do with it.

    Args:
        word: the kind, in the singular or the plural.
        name: of what is registered.
        out: the folder; `dipp-NAME` in the working folder where None.
        as_json: print a JSON object instead.

    Raises:
        RequestError: there is no such kind, the name cannot be used, or the folder is there or cannot be written.
    """
    kind = find_kind(word)
    check_name(kind, name, get_registry())
    project = Project(kind, name)
    folder = user_path(out if out is not None else project.distribution)
    if folder.exists() or folder.is_symlink():
        raise RequestError(f"{shown(folder)} is there already; nothing was written. Name another folder with --out.")
    check_folder_place(folder, "plugin's folder")
    files = project.files()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as beside:
            for place, text in files.items():
                path = beside / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise RequestError(f"Cannot write {error.filename or folder}: {error.strerror or error}.") from error
    described: dict[str, Any] = {
        "kind": kind, "name": name, "folder": str(folder), "distribution": project.distribution,
        "module": project.module, "files": list(files),
    }  # fmt: skip
    if as_json:
        print_json(described)
        return
    place = shlex.quote(str(folder) if folder.is_absolute() else f"./{folder}")  # pip looks elsewhere for a bare name
    print_line(f"{folder}  a project with {' '.join(TEMPLATES[kind].what).lower()} '{name}', tests and a README")
    print_line(f"  change   {folder / project.module / f'{kind}.py'}")
    print_line(f"  install  pip install -e {place}")
    print_line(f"  check    dipp plugins check {name}")
    for command in project.commands:
        print_line(f"  use      {command}")
    print_line("  licence  none is chosen: put a LICENSE of your choice beside the README before you share it")
