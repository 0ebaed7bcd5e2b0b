"""A fitted reward's model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("card.md.jinja")


def card_text(facts: Mapping[str, Any]) -> str:
    """The card as Markdown with a YAML header that the hub reads.

    Args:
        facts: as `fit.json` has them.
    """
    from huggingface_hub import ModelCard, ModelCardData

    hub = facts["backbone"].get("hub")
    card = ModelCard.from_template(
        ModelCardData(
            library_name="dipp-toolkit",
            tags=["reward-model", "preference", "trl", "dipp-toolkit"],
            base_model=hub or None,
        ),
        template_path=str(TEMPLATE),
        **{key: facts[key] for key in ("votes", "held_out", "voters_agreement", "settings", "members", "backbone")},
    )
    return f"{card.content.rstrip()}\n"
