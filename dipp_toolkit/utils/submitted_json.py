"""JSON that strangers send in, a row of a leaderboard or of an acceptance: numbers and texts that can be meant."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from .messages import shown

LARGEST = 1e30
"""Of a number in a row: far more than any figure has, and its square is a number still."""
DIGITS = 19
"""Most of a whole number: seeds and counts have 64 bits."""
HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON writes half of a character, or one of a pair that is one."""


def parse_submitted(text: str) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is no JSON, a number is not finite, too large or too long, or half of a character is in it.
        RecursionError: it is nested too deeply.
    """
    content = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_whole_number)
    if HALF.search(text):
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half of a character, which is no text") from None
    return content


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text}, which is no finite number")
    if abs(value) > LARGEST:
        raise ValueError(f"it holds {shown(text)}; expected numbers up to {LARGEST:g}")
    return value


def _whole_number(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"it holds a whole number of {len(text)} digits; expected {DIGITS} at most")
    return int(text)
