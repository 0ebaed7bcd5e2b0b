"""Sentences of the toolkit for those who call it from Python: what is a flag of the command line is a keyword there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import DippError, Interrupted

KEYWORDS = {"reward": "rewards", "floor": "floors"}
"""Flags whose keyword has another name; of all others it is the same, with underscores."""
COMMANDS = {"train": "train", "distill": "train", "generate": "generate", "plan": "plan", "verify": "verify"}
"""Functions that do what a command does."""
WORD = r"'[^']*'|\"[^\"]*\"|[^\s'\"]*[^\s'\".,;:)]"
COMMAND = re.compile(rf"\bdipp (?P<name>{'|'.join(COMMANDS)})(?P<words>(?: (?:{WORD}))*)")
SET = re.compile(rf"--set (?P<quote>['\"]?)(?P<name>[\w.<>-]+)=(?P<value>(?:{WORD})?)(?P=quote)")
VALUE = r"[A-Z|]{2,}\b|\d+(?:\.\d+)?\b|[\w./-]*[\d/_-][\w./-]*\w"
FLAG = re.compile(rf"(?<![\w-])--(?P<name>[a-z][a-z-]*)(?: (?P<value>{VALUE}))?")
"""A flag, and what follows it where that cannot be a word of the sentence."""
SWITCHES = ("resume",)
"""Flags that are on where they stand alone."""


def keyword(flag: str) -> str:
    """The keyword of a flag, `batch_size` of `batch-size`."""
    return KEYWORDS.get(flag, flag.replace("-", "_"))


def literal(text: str) -> str:
    """A word of a command as Python writes it: numbers as they are, everything else as a text."""
    text = text.strip("'\"")
    if text in ("true", "false", "null"):
        return {"true": "True", "false": "False", "null": "None"}[text]
    try:
        float(text)
    except ValueError:
        return repr(text)
    return text


def _assigned(match: re.Match[str]) -> str:
    return f"{_setting(match['name'], match['value'])}"


def _setting(name: str, value: str) -> str:
    group, _, rest = name.partition(".")
    if group in ("reward", "term", "generator") and rest:
        owner, _, option = rest.rpartition(".")
        return f"{group}_options={{{owner!r}: {{{option!r}: {literal(value)}}}}}"
    return f"{name.replace('.', '_')}={literal(value)}"


def _called(match: re.Match[str]) -> str:
    """`dipp train --resume --out runs/x` as `train(resume=True, out='runs/x')`."""
    try:
        words = shlex.split(match["words"])
    except ValueError:
        return match.group()
    arguments: list[str] = []
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            return match.group()
        name = word.removeprefix("--")
        value = words.pop(0) if words and not words[0].startswith("--") else None
        if name == "set" and value is not None:
            arguments.append(_setting(*value.partition("=")[::2]))
        elif value is None:
            arguments.append(f"{keyword(name)}=True")
        else:
            arguments.append(f"{keyword(name)}={literal(value)}")
    return f"{COMMANDS[match['name']]}({', '.join(arguments)})"


def _flag(match: re.Match[str]) -> str:
    if match["name"] in SWITCHES:
        return f"{keyword(match['name'])}=True{' ' + match['value'] if match['value'] else ''}"
    value = match["value"] or ""
    return f"{keyword(match['name'])}={value if value.isupper() or not value else literal(value)}"


def in_python_words(sentence: str) -> str:
    """A sentence with keywords in the place of flags.

    >>> in_python_words("Name the prompts to train on with --prompts: a prompt set or a text file.")
    'Name the prompts to train on with prompts=: a prompt set or a text file.'
    >>> in_python_words("Go on with: dipp train --resume --out runs/x")
    "Go on with: train(resume=True, out='runs/x')"
    """
    passes: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
        (COMMAND, _called),
        (SET, _assigned),
        (FLAG, _flag),
    )
    for pattern, words in passes:
        sentence = pattern.sub(words, sentence)
    return sentence


@contextmanager
def python_words() -> Iterator[None]:
    """Inside this context, whatever the toolkit raises speaks of keywords and not of flags."""
    try:
        yield
    except (DippError, Interrupted) as error:
        if error.args and isinstance(error.args[0], str):
            error.args = (in_python_words(error.args[0]), *error.args[1:])
        raise
