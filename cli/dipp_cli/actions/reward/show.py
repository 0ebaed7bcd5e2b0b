"""What `dipp reward show` does: facts of one reward as lines, or of all as a table."""

from __future__ import annotations

from typing import Any

from dipp_toolkit.rewards.facts import RewardFacts, all_facts, facts_of

from ...terminal.output import print_json, print_line

NOT_SAID = "not stated"


def show_one(name: str, as_json: bool) -> None:
    """Print facts of a reward, a line each, or as a JSON object.

    Raises:
        RequestError: there is no such reward.
    """
    from dipp_toolkit.training.setup.name_checks import check_rewards

    check_rewards([name])
    facts, parameters = facts_of(name), _parameters(name)
    if as_json:
        print_json(_row(facts, parameters))
        return
    millions = (parameters or 0) / 1e6
    size = f"{millions:,.0f} M" if millions >= 100 else f"{millions:.3g} M"
    count = f"{size}, {4 * (parameters or 0) / 2**30:.2f} GiB in float32" if parameters else NOT_SAID
    lines = {
        "scores": facts.range,
        "gradient": facts.gradient_text,
        "prompts": "read" if facts.reads_prompts else "do not matter",
        "blind to": facts.blind_to,
        "licence": facts.licence,
        "source": facts.source,
        "asks": facts.asks,
        "parameters": "" if facts.asks else count,
    }
    print_line(facts.name)
    for label, text in lines.items():
        if text or label not in ("asks", "parameters"):
            print_line(f"  {label:<11}{text or NOT_SAID}")


def show_all(as_json: bool) -> None:
    """Print a table of all rewards, or a JSON object."""
    from rich.table import Table

    from ...terminal.tables import show

    rows = all_facts()
    if as_json:
        print_json({"rewards": [_row(facts, _parameters(facts.name)) for facts in rows]})
        return
    table = Table(title="reward", title_justify="left")
    for column in ("name", "scores", "gradient"):
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for facts in rows:
        table.add_row(facts.name, facts.range or NOT_SAID, facts.gradient_text)
    show(table)
    print_line("Licence, source, size and blind spots of one: dipp reward show NAME")


def _row(facts: RewardFacts, parameters: int | None) -> dict[str, Any]:
    return {**facts.as_dict(), "parameters": parameters}


def _parameters(name: str) -> int | None:
    """Parameters of a reward's network by its blueprint; None where there is none."""
    import torch

    from dipp_toolkit.models.blueprints import RewardBlueprint, find_blueprint, parameter_count
    from dipp_toolkit.models.files.folders import quiet_loading
    from dipp_toolkit.registry import get_registry

    name = name.rpartition("@")[0] or name
    if name not in get_registry().entries["blueprint"]:
        return None
    blueprint = find_blueprint(name)
    if not isinstance(blueprint, RewardBlueprint):
        return None
    with quiet_loading(), torch.device("meta"):
        return parameter_count(blueprint.build())
