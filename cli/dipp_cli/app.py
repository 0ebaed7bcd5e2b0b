"""The program: builds the application, runs a command, and turns whatever goes wrong into a sentence and an exit code.

Exit codes: 0 done, 1 the check or the run failed, 2 the request was wrong, 130 interrupted.

Nothing but the standard library is imported before `main` watches for errors and Ctrl-C.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

atexit.register(gc.freeze)  # Python looks for garbage once more before it ends: two seconds, after a plan

DEBUG = "--debug"
LEAVE_FILES = (
    "ablate", "accept", "bench", "distill", "export", "generate", "leaderboard", "prompts", "train", "tune", "vote",
)  # fmt: skip
"""Commands whose result is in files; what they print says where."""
FAILED, WRONG_REQUEST, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: words after the program's name; those of the process where none are given.

    Returns:
        The exit code. Nothing is raised unless `--debug` is among the words.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Taken off by hand, so that it may stand anywhere and is known before anything else can go wrong.
    debug = DEBUG in words
    words = [word for word in words if word != DEBUG]
    if not debug:  # what libraries log about their own files says nothing about the request
        for library in ("DIFFUSERS", "TRANSFORMERS"):
            os.environ.setdefault(f"{library}_VERBOSITY", "error")
    from .terminal.streams import tolerant

    with tolerant() as out:
        code = _guarded(words, debug)
        out.flush()
        return code if out.lost is None else _report_lost_output(out.lost, words, code)


def _guarded(words: list[str], debug: bool) -> int:
    """Run a command; whatever goes wrong becomes a sentence and an exit code."""
    try:
        with warnings.catch_warnings():
            if not debug:
                for category in (FutureWarning, DeprecationWarning):
                    warnings.simplefilter("ignore", category)
            return run_command(words)
    except KeyboardInterrupt as stop:  # one of ours says what is saved
        return _explain(str(stop) or "Interrupted.", INTERRUPTED)
    except Exception as error:  # noqa: BLE001 -- whatever it is, it becomes a sentence
        code, sentence = _describe(error, words)
        if _is_of_own_code(error) and not debug:
            sentence += f" Run again with {DEBUG} for the traceback."
        if debug:
            import traceback

            traceback.print_exc()
        return _explain(sentence, code)


def run_command(words: list[str]) -> int:
    """Parse and run one command; returns its exit code."""
    from .build import Stopped, build_command
    from .terminal.usage import is_bare_group

    try:
        code = build_command().main(words or ["--help"], prog_name="dipp", standalone_mode=False)
    except Stopped as stopped:
        assert stopped.__cause__ is not None
        raise stopped.__cause__ from None
    except Exception as error:
        if not is_bare_group(error):
            raise
        print(error)  # its help, or the end of it where rich has printed the rest
        return 0
    if code == INTERRUPTED:  # click has turned a KeyboardInterrupt into its exit code
        return _explain("Interrupted.", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _describe(error: Exception, words: Sequence[str]) -> tuple[int, str]:
    """The exit code of an error, and a sentence about it."""
    from dipp_toolkit.errors import DippError, RequestError
    from dipp_toolkit.utils.exception_text import raised

    from .terminal.usage import is_usage_error, usage_sentence

    if is_usage_error(error):
        return WRONG_REQUEST, usage_sentence(error, words)
    if isinstance(error, RequestError):
        return WRONG_REQUEST, str(error)
    if isinstance(error, DippError):
        return FAILED, str(error)
    if isinstance(error, OSError):
        from dipp_toolkit.utils.disk_errors import AGAIN, of_the_disk, reason_of, way_on

        if of_the_disk(error):
            return FAILED, f"{reason_of(error)}. {way_on(error, AGAIN)}"
    return FAILED, f"{raised(error)}."


def _is_of_own_code(error: BaseException) -> bool:
    """Whether an error is not one of ours, or was caused by somebody's own code."""
    from dipp_toolkit.errors import DippError
    from dipp_toolkit.utils.disk_errors import of_the_disk
    from dipp_toolkit.utils.exception_text import own_line

    from .terminal.usage import is_usage_error

    if is_usage_error(error) or (isinstance(error, OSError) and of_the_disk(error)):
        return False
    if not isinstance(error, DippError):
        return True
    cause = error.__cause__
    return cause is not None and (_is_of_own_code(cause) if isinstance(cause, DippError) else bool(own_line(cause)))


def _report_lost_output(error: OSError, words: Sequence[str], code: int) -> int:
    """Report that stdout, such as a file on a full disk, did not take what was printed; returns the exit code."""
    if code != 0:
        return code
    reason = f"Standard output could not be written: {error.strerror or error}."
    if next(iter(words), "") in LEAVE_FILES:
        print(f"{reason} The work is done and its files are complete.", file=sys.stderr)
        return 0
    return _explain(f"{reason} This command's result is what it prints: run it again with enough disk space.", FAILED)


def _explain(sentence: str, code: int) -> int:
    """Say a sentence on stderr, on one line; returns `code`.

    A name from somebody's file may hold what moves a terminal's cursor; nothing of that is written. Of several
    processes that were interrupted together, the first speaks.
    """
    if code == INTERRUPTED and os.environ.get("RANK", "0") != "0":
        return code
    from dipp_toolkit.errors import without_secrets

    stream: Any = sys.stderr
    sentence = "".join(letter if letter.isprintable() else " " for letter in without_secrets(sentence))
    label = "\033[31mError:\033[0m" if stream.isatty() and code != INTERRUPTED else "Error:"
    print(f"{'dipp:' if code == INTERRUPTED else label} {' '.join(sentence.split())}", file=stream)
    return code
