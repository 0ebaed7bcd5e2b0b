r"""Formulas become MathML while the site is built: browsers draw it themselves, so no script and no font is loaded."""

from __future__ import annotations

import html
import re
from typing import Any

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
BARE = re.compile(r"\\\((.*?)\\\)")
"""A formula in a heading, as the table of contents has it."""


def to_mathml(latex: str, display: str = "inline") -> str:
    """A formula as MathML.

    Args:
        latex: as between dollars.
        display: `inline` or `block`.

    Raises:
        ValueError: a command of it is not known, and would be shown by its name.
    """
    from latex2mathml.converter import convert

    mathml = convert(latex.strip(), display=display).replace(r">\|<", ">&#x02016;<")  # which it leaves after \Big
    if "\\" in mathml:
        raise ValueError(f"latex2mathml does not know a command of ${latex}$.")
    return mathml


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Puts MathML in the place of every formula of a page, and of its table of contents."""
    for entry in _entries(page.toc):
        entry.title = BARE.sub(lambda match: to_mathml(html.unescape(match.group(1))), entry.title)
    return FORMULA.sub(_replaced, content)


def _replaced(match: re.Match[str]) -> str:
    mathml = to_mathml(html.unescape(match.group(3)), "inline" if match.group(2) == "(" else "block")
    return mathml if match.group(2) == "(" else f'<div class="formula">{mathml}</div>'


def _entries(entries: Any) -> Any:
    for entry in entries:
        yield entry
        yield from _entries(entry.children)
