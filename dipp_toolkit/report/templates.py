"""Templates of the pages: escaped, and strict about names."""

from __future__ import annotations

import jinja2


def template(package: str, name: str) -> jinja2.Template:
    """A page's template; it may include the report's own files, its style sheet above all.

    Args:
        package: holds the template.
        name: its file.
    """
    packages = dict.fromkeys((package, __package__))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(one, ".") for one in packages]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)
