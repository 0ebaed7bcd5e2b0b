"""The parts of a prompt, each a question with the answer of an image that shows it: from a file or by a judge."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dipp_toolkit.errors import RequestError
from dipp_toolkit.rewards.by_prompt import read_by_prompt, row_of
from dipp_toolkit.utils.content_digests import file_digest
from dipp_toolkit.utils.messages import quoted

from .reading import Answer, Unusable, quote
from .template import Words

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
MARK = re.compile(r"(?:[-*]|\d{1,2}[.)])\s*")
"""Of a list, before a question."""
WORD = re.compile(r"[\w-]{1,40}")
DECORATION = string.punctuation + string.whitespace + "\u201c\u201d\u2018\u2019\u2026"
HEADS = ({"question", "questions"}, {"answer", "answers"})
"""Of a table's columns."""
SHORTEST, LONGEST = 3, 400
"""Characters of a question."""
LONGEST_LINE = 600
MOST = 64
"""Questions about one prompt."""
EXAMPLE = '{"prompt": "two red cups", "vqa_list": [["How many cups are in the image?", "two"]]}'


@dataclass(frozen=True)
class Atom:
    """A part of a prompt.

    Attributes:
        question: about an image.
        answer: one word, of an image that shows the part.
    """

    question: str
    answer: str

    @property
    def asked(self) -> str:
        """The question as a sentence."""
        text = self.question.strip()
        return text if text.endswith((".", "?")) else f"{text}."

    @property
    def words(self) -> Words:
        """What may be answered: a number as a word and in digits, anything else as it is."""
        word = self.answer.strip().casefold()
        if word in NUMBERS:
            return word, str(NUMBERS.index(word))
        if word.isdecimal() and len(word) == 1:
            return word, NUMBERS[int(word)]
        return (word,)

    @property
    def is_readable(self) -> bool:
        """Whether the answer can be told by its first token: one word, and no number in several digits, which
        tokenizers may write one by one. Whether a word is one token, only the server knows."""
        word = self.answer.strip()
        return len(word.split()) == 1 and not (len(word) > 1 and any(map(str.isdigit, word)))


class AtomFile:
    """A file of questions by prompt, in the format of GenEval 2's `geneval2_data.jsonl`; other fields are passed over.

    Args:
        path: of JSON lines, each with a `prompt` and a `vqa_list` of questions with their answers.

    Raises:
        RequestError: it is not there, or a line is not of this format.
    """

    def __init__(self, path: Path):
        self.path = path
        if not path.is_file():
            raise RequestError(
                f"The option atoms names {path}, which is not a file; expected JSON lines such as {EXAMPLE}"
            )
        self.rows = read_by_prompt(path, "questions", _atoms_of, EXAMPLE)

    @property
    def digest(self) -> str:
        """Of the file."""
        return file_digest(self.path)

    def of(self, prompt: str) -> Sequence[Atom]:
        """The parts of a prompt.

        Raises:
            RunError: the file has none; the message names the prompt that is most like it.
        """
        return row_of(
            self.rows, prompt, f"The questions {self.path} have none about",
            "Leave the option atoms out, and the judge makes them of each prompt.",
        )  # fmt: skip


def _atoms_of(content: Any) -> tuple[str, tuple[Atom, ...]]:
    """The prompt and its parts of what a line holds.

    Raises:
        ValueError: it is not of the format, or an answer cannot be told by its first token.
    """
    prompt = content.get("prompt") if isinstance(content, Mapping) else None
    pairs = content.get("vqa_list") if isinstance(content, Mapping) else None
    if not isinstance(prompt, str) or not isinstance(pairs, list) or not pairs:
        raise ValueError("a field is missing")
    wrong = next((pair for pair in pairs if not _is_pair(pair)), None)
    if wrong is not None:
        raise ValueError(f"{quoted(wrong)} is no question with its answer")
    atoms = tuple(Atom(question, answer) for question, answer in pairs)
    unreadable = next((atom.answer for atom in atoms if not atom.is_readable), None)
    if unreadable is not None:
        raise ValueError(
            f"the answer {quoted(unreadable)} cannot be told by its first token; an answer is to be Yes, No, a number "
            "up to nine, or one word, such as twelve for 12"
        )
    return prompt, atoms


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) and text.strip() for text in pair)


def atoms_in(answer: Answer, most_tokens: int) -> tuple[Atom, ...]:
    """The parts of a prompt as a judge lists them, `QUESTION | ANSWER` a line, in a list or a table; what else it
    writes is passed over, and so are answers that no first token tells.

    Args:
        answer: its answer to the template `questions`.
        most_tokens: of the template, for the message.

    Raises:
        Unusable: it was cut off, or lists none.
    """
    if answer.finish == "length":
        raise Unusable(f"its questions were cut off after {most_tokens} tokens, max_tokens of the template")
    found = dict.fromkeys(atom for atom in map(_atom_in, answer.text.splitlines()) if atom is not None)
    if not found:
        raise Unusable(f"it lists no questions of the form QUESTION | ANSWER: {quote(answer.text)}")
    if len(found) > MOST:
        raise Unusable(f"it lists {len(found)} questions about one prompt; expected at most {MOST}")
    return tuple(found)


def _atom_in(line: str) -> Atom | None:
    """The question with its answer in a line, None where it has none; in time that grows as the line does."""
    line = line.strip()
    if len(line) > LONGEST_LINE:
        return None
    line = line.removeprefix("|").removesuffix("|").strip()  # a table's outer bars
    question, _, answer = line.partition("|")
    mark = MARK.match(question)
    question = question[mark.end() if mark else 0 :].strip("*_` ")
    answer = answer.strip(DECORATION)
    if not SHORTEST <= len(question) <= LONGEST or not WORD.fullmatch(answer):
        return None
    if not any(map(str.isalnum, question)) or not any(map(str.isalnum, answer)):
        return None
    if question.strip(DECORATION).casefold() in HEADS[0] and answer.casefold() in HEADS[1]:
        return None
    atom = Atom(question, answer)
    return atom if atom.is_readable else None
