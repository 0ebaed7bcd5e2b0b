"""Templates of the pages: escaped, and strict about names."""

from __future__ import annotations

import re

import jinja2
from markupsafe import Markup, escape

JOINT = re.compile(r"(?<=\w)([/_:,.@?&]+)(?=\w)")
"""Where a long name may be broken, as a browser does not know by itself."""
FLAG = re.compile(r"(?<!\S)(--?[A-Za-z][\w-]*)")


def breakable(text: str) -> Markup:
    """A name for a narrow column: where it has to be broken, it is at its joints and not inside a word."""
    return Markup("<wbr>").join(escape(part) for part in JOINT.sub("\\1\0", text).split("\0"))


def command_line(text: str) -> Markup:
    """A command whose flags are not broken: a line could end after a hyphen of theirs."""
    return Markup(FLAG.sub(r'<span class="whole">\1</span>', str(escape(text))))


def template(package: str, name: str) -> jinja2.Template:
    """A page's template; it may include the report's own files, its style sheet above all.

    Args:
        package: holds the template.
        name: its file.
    """
    packages = dict.fromkeys((package, __package__))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(folder, ".") for folder in packages]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"breakable": breakable, "command_line": command_line}
    return environment.get_template(name)
