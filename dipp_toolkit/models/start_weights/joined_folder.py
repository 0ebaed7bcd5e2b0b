"""A pipeline with the network of another repository, as one folder: for networks that are published alone.

PixArt-Sigma's at 512 pixels, for one, is a folder with weights and a configuration of its own, and is put into the
pipeline of the one at 1024: `OWNER/PIPELINE+OWNER/NETWORK:folder` names both. Weights that a generator starts from, the
setting `weights`, have the same addresses; what a network is, such as its size, is the pipeline's to say there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...utils.json_files import read_json
from ..files.download_lists import INDEX
from ..files.folders import family_of
from .network_folder import network_folder
from .store import converted_folder


def joined_folder(pipeline: Path, network: str) -> Path:
    """The folder of links to a pipeline's parts and to the network in the place of its own.

    Args:
        pipeline: its folder.
        network: address of a folder with a network; see `network_folder`.

    Returns:
        A folder below `$DIPP_CACHE/converted`, made once. In a dry run, the pipeline's own where the network would be
        fetched.

    Raises:
        RequestError: the network is not there, cannot be fetched, or is another class's.
    """
    name = family_of(pipeline).network_name
    place = network_folder(network, pipeline, name)
    if place == pipeline / name:
        return pipeline
    index = read_json(pipeline / INDEX)
    parts = {path.name: path.resolve() for path in sorted(pipeline.iterdir()) if path.is_dir()}
    parts[name] = place.resolve()

    def make(beside: Path) -> None:
        for part, where in parts.items():
            (beside / part).symlink_to(where, target_is_directory=True)
        (beside / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    made_of: list[Any] = ["joined", index, {part: str(where) for part, where in parts.items()}]
    return converted_folder(made_of, make)
