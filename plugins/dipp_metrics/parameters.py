"""`parameters`: how many parameters make an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dipp_toolkit.protocols import ImageSource


class Parameters:
    """Parameters in millions: of each network, and of all, those that networks share counted once in the sum."""

    def __init__(self) -> None:
        self._better = {"parameters": "lower"}

    @property
    def better(self) -> Mapping[str, str]:
        """`parameters`, and after `costs` those of the networks that were met: `parameters-vae`, say."""
        return self._better

    def costs(self, source: ImageSource, prompts: Sequence[str]) -> dict[str, list[float]]:
        """`parameters` and `parameters-NAME` for each network, each exact."""
        found: dict[str, list[float]] = {}
        everything: dict[int, int] = {}
        for name, network in source.networks.items():
            own = {id(one): one.numel() for one in network.parameters()}
            everything |= own
            found[f"parameters-{name}"] = [sum(own.values()) / 1e6]
        self._better = dict.fromkeys(("parameters", *self._better, *found), "lower")
        return {"parameters": [sum(everything.values()) / 1e6], **found}
