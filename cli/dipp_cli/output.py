"""Where words go: results to stdout, progress and errors to stderr, and with `--json` one object alone on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send everything that anybody prints to stderr, so that stdout holds the result alone."""
    from contextlib import redirect_stdout

    with redirect_stdout(sys.stderr):
        yield


def is_first_process() -> bool:
    """Whether this is the one of a launcher's processes that speaks."""
    return os.environ.get("RANK", "0") == "0"


def print_json(value: Any) -> None:
    """One JSON value on stdout; numbers that are not finite become null, as JSON has none."""
    text = json.dumps(_plain(value), indent=2, allow_nan=False, ensure_ascii=False)
    # Half a character, which a file's name may hold, becomes its escape, as JSON has it.
    text = text.encode("utf-8", "backslashreplace").decode()
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # where a console does not know a character, all are written as JSON's escapes
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=True)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child) for child in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
