"""A simulated voter before a session: asked through the same questions as people, until the goal is reached."""

from __future__ import annotations

from ...preferences.simulated import SimulatedVoter
from .session import Session


def answer_all(session: Session, voter: SimulatedVoter) -> None:
    """Answer until the voter has reached the goal, or no pair is left.

    Args:
        session: asks and keeps the votes.
        voter: a reward as one.

    Raises:
        DippError: an image cannot be scored, or the votes cannot be kept.
    """
    while not session.progress(voter.name).done:
        showing = session.question(voter.name)
        if showing is None:
            return
        choice = voter.choose(showing.first, showing.second, again=bool(showing.repeat_of))
        session.answer(voter.name, showing.id, choice)
