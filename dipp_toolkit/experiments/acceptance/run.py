"""All checks, one after the other: what one finds, or raises, is rows, and the next ones go on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

import torch

from ...errors import DippError
from ...training.stepping import StopNow, StopRequest
from ...utils.exception_text import raised
from .check import Check, Outcome, all_checks, failed, skipped
from .subject import Subject

MINUTES = 20.0
"""After which no further check begins; what people see takes ten, a first download not counted."""


@dataclass(frozen=True)
class AcceptanceResult:
    """What the checks found.

    Attributes:
        outcomes: rows, in the order of the checks.
        complete: False where a signal ended it; the checks that were left say so.
    """

    outcomes: tuple[Outcome, ...]
    complete: bool

    @property
    def passed(self) -> bool:
        """Whether no row fails."""
        return all(outcome.verdict != "fail" for outcome in self.outcomes)


def accept(
    subject: Subject, skip: Collection[str] = (), tell: Callable[[str], object] = lambda text: None
) -> AcceptanceResult:
    """Run every check.

    Args:
        subject: what is accepted; closed at the end.
        skip: names of checks that are left out.
        tell: called with a line as each check begins.
    """
    outcomes: list[Outcome] = []
    left = list(all_checks())
    stop = StopRequest()
    complete = False
    try:
        with stop.noted(), stop.at_once():
            while left:
                check = left[0]
                if check.name in skip:
                    rows: Iterator[Outcome] = iter([skipped(check.asks, "Left out by --skip.")])
                elif subject.late:
                    rows = iter([skipped(check.asks, "The time limit is reached; --minutes raises it.")])
                else:
                    tell(f"{check.name}: {check.asks} ...")
                    rows = _rows(check, subject)
                for outcome in rows:
                    outcomes.append(replace(outcome, check=check.name))
                left.pop(0)
            complete = True
    except (StopNow, KeyboardInterrupt):
        outcomes += [replace(skipped(check.asks, "Interrupted."), check=check.name) for check in left]
    finally:
        with stop.noted():  # a second signal does not lose what was found
            subject.close()
    return AcceptanceResult(tuple(outcomes), complete)


def _rows(check: Check, subject: Subject) -> Iterator[Outcome]:
    """A check's rows; what it raises is the last one."""
    try:
        yield from check.run(subject)
    except torch.OutOfMemoryError:
        subject.free()
        yield failed(
            check.asks,
            "The device ran out of memory. Use less with --set frozen_precision=bf16, --set batch_size=1 or "
            "--set gradient_checkpointing=true; dipp plan shows what each takes.",
        )
    except DippError as error:
        yield failed(check.asks, str(error))
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is what the check has found
        yield failed(check.asks, f"It raised {raised(error)}.")
