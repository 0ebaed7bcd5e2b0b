"""What a pipeline folder may ask of us: its index names classes of trusted libraries, and folders inside it.

Somebody else wrote the folder. Left alone, diffusers imports whatever library an index names, older versions run a
Python file that lies in a component's folder, and an export copies the folders that an index names, wherever they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...errors import RequestError
from ...utils.messages import shown
from .weight_files import PICKLE, weights_in

LIBRARIES = ("diffusers", "transformers")

ADAPTER = "adapter_config.json"
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")


def check_index(index: Mapping[str, Any], folder: Path) -> None:
    """Refuse an index that would have code run, or folders touched that are not the pipeline's.

    Args:
        index: from `model_index.json`.
        folder: that of the pipeline.

    Raises:
        RequestError: with the component's name.
    """
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list):
            continue
        if not (name.isascii() and name.isidentifier()):
            raise RequestError(
                f"The pipeline {folder} names a component '{shown(name)}' in model_index.json; expected a plain word, "
                "which is a folder of the pipeline's own."
            )
        if len(entry) == 2 and entry[0] is not None:
            _check_class(name, entry, folder)
            _check_files(name, folder / name, str(entry[0]))


def stock_pipeline(index: Mapping[str, Any]) -> Any:
    """The diffusers class that an index names; None where diffusers has none of this name.

    Args:
        index: from `model_index.json`, checked.
    """
    import diffusers

    return getattr(diffusers, str(index.get("_class_name")), None)


def _check_class(name: str, entry: list[Any], folder: Path) -> None:
    library, kind = entry
    if not (isinstance(library, str) and isinstance(kind, str) and kind.isidentifier() and library.isidentifier()):
        raise RequestError(
            f"The component '{name}' of {folder} is {shown(entry)} in model_index.json; expected a library and a class."
        )
    if library not in LIBRARIES and find_spec(f"diffusers.pipelines.{library}") is None:
        raise RequestError(
            f"The component '{name}' of {folder} comes from '{library}'; only diffusers and transformers are trusted."
        )
    if kind.startswith("Auto") and not kind.lower().startswith("autoencoder"):
        raise RequestError(
            f"The component '{name}' of {folder} is of the class {kind}, which leaves it to other files what is "
            "loaded; expected the class itself."
        )


def _check_files(name: str, place: Path, library: str) -> None:
    code = place / f"{library}.py"
    if code.exists():
        raise RequestError(f"{code} is code that the component '{name}' brings; it is never run. Remove it.")
    if (place / ADAPTER).exists():
        raise RequestError(
            f"The component '{name}' has an adapter, {place / ADAPTER}, which loads other weights than these. "
            "Merge it into the weights and remove the file."
        )
    check_pickled(name, place)


def check_pickled(name: str, place: Path) -> None:
    """Refuse a network that has its weights in pickles alone, where those hold more than tensors.

    Args:
        name: of the component, for the message.
        place: its folder.

    Raises:
        RequestError: one would run code when it is read, is damaged, or has a name that no library looks for.
    """
    pickled = only_pickled(place)
    if pickled is None:
        return
    weights = weights_in(place, PICKLE)
    if weights is None:
        raise RequestError(pickles_are_refused(name, pickled))
    from ...utils.tensor_files import check_weights

    for file in weights.files:
        try:
            check_weights(place / file)
        except RequestError as error:
            raise RequestError(pickles_are_refused(name, place / file)) from error


def check_config(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a network's configuration that names code elsewhere: kernels of the hub, `owner/name`, as its attention.

    Args:
        config: from `config.json`.
        path: of that file, for the message.

    Raises:
        RequestError: it does.
    """
    for key, value in config.items():
        if isinstance(value, Mapping):
            check_config(value, path)
        elif "_implementation" in key and "/" in str(value):
            raise RequestError(f"{path} asks for the code '{shown(value)}' as its {shown(key)}; it is not fetched.")


def only_pickled(place: Path) -> Path | None:
    """A file of pickled weights in a component's folder, where there are no safetensors that would be read instead."""
    if weights_in(place) is not None or any(place.glob("*.safetensors.index*.json")):
        return None
    files = sorted(place.iterdir()) if place.is_dir() else []
    return next((path for path in files if path.suffix.lower() in PICKLED), None)


def pickles_are_refused(name: str, path: Path) -> str:
    """The sentence about a component that has its weights in a pickle alone."""
    return (
        f"The weights of '{name}' are refused: {path} is a pickle, which may run code when it is read, and there are "
        "no safetensors beside it. Fetch the safetensors that most pipelines publish as well."
    )
