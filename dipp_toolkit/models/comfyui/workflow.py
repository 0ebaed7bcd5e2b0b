"""A workflow of ComfyUI's stock nodes: as its server takes it, and as its page loads it.

Both are made from one list of nodes. The page's format holds values by their places, so that a node lists its widgets
in the order in which its source declares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .facts import ComfyModel
from .sigmas import DIGITS, ComfyNoise

COLUMN, ROW = 340, 190
"""Pixels between the corners of nodes on the page."""
FIXED = "fixed"
"""What the page notes beside a seed: it stays as it is after a run."""


@dataclass(frozen=True)
class Source:
    """An output of a node: its place in the workflow, and which of its outputs it is."""

    node: int
    output: int = 0


@dataclass(frozen=True)
class Node:
    """A node with what it is given.

    Attributes:
        kind: the node's class.
        inputs: outputs of others by input.
        widgets: values by input, in the order of the class.
        gives: types of its outputs.
    """

    kind: str
    inputs: Mapping[str, Source] = field(default_factory=dict)
    widgets: Mapping[str, Any] = field(default_factory=dict)
    gives: tuple[str, ...] = ()


@dataclass(frozen=True)
class ComfyFiles:
    """Files that a workflow loads, by their names in ComfyUI's folders.

    Attributes:
        checkpoint: in `models/checkpoints`, or in `models/diffusion_models` where the others are given.
        text_encoder: in `models/text_encoders`, where it is a file of its own.
        vae: in `models/vae`, where it is a file of its own.
        lora: in `models/loras`, where one is put over the checkpoint.
    """

    checkpoint: str
    text_encoder: str | None = None
    vae: str | None = None
    lora: str | None = None


def make_workflow(
    model: ComfyModel,
    noise: ComfyNoise,
    files: ComfyFiles,
    *,
    size: tuple[int, int],
    prompt: str,
    name: str,
    latent_factor: float | None = None,
) -> list[Node]:
    """The nodes that make a generator's image.

    Args:
        model: what ComfyUI makes of its network.
        noise: its sigmas and start.
        files: that are loaded.
        size: of the image, height and width in pixels.
        prompt: to begin with.
        name: what images' files begin with.
        latent_factor: what latents are multiplied with before they are decoded.

    Returns:
        The nodes, each after those that it needs.
    """
    nodes: list[Node] = []

    def add(kind: str, gives: Sequence[str], inputs: Mapping[str, Source] | None = None, **widgets: Any) -> Source:
        nodes.append(Node(kind, inputs or {}, widgets, tuple(gives)))
        return Source(len(nodes) - 1)

    if files.text_encoder is None:
        loaded = add("CheckpointLoaderSimple", ("MODEL", "CLIP", "VAE"), ckpt_name=files.checkpoint)
        network, clip, vae = loaded, Source(loaded.node, 1), Source(loaded.node, 2)
    else:
        network = add("UNETLoader", ("MODEL",), unet_name=files.checkpoint, weight_dtype="default")
        kind: dict[str, Any] = {"clip_name": files.text_encoder, "type": model.clip_type, "device": "default"}
        clip = add("CLIPLoader", ("CLIP",), **kind)
        vae = add("VAELoader", ("VAE",), vae_name=files.vae)
    if files.lora is not None:
        weights: dict[str, Any] = {"lora_name": files.lora, "strength_model": 1.0}
        network = add("LoraLoaderModelOnly", ("MODEL",), {"model": network}, **weights)
    if noise.sampling is not None:
        network = add("ModelSamplingDiscrete", ("MODEL",), {"model": network}, sampling=noise.sampling, zsnr=False)
    if model.t5_length is not None:
        clip = add("T5TokenizerOptions", ("CLIP",), {"clip": clip}, min_padding=0, min_length=model.t5_length)
    height, width = size
    if model.sized:
        sized = {"width": width, "height": height, "text": prompt}
        condition = add("CLIPTextEncodePixArtAlpha", ("CONDITIONING",), {"clip": clip}, **sized)
    else:
        condition = add("CLIPTextEncode", ("CONDITIONING",), {"clip": clip}, text=prompt)
    if model.guidance is not None:
        condition = add("FluxGuidance", ("CONDITIONING",), {"conditioning": condition}, guidance=model.guidance)
    empty = "EmptySD3LatentImage" if model.sixteen_channels else "EmptyLatentImage"
    latent = add(empty, ("LATENT",), width=width, height=height, batch_size=1)
    random = add("RandomNoise", ("NOISE",), noise_seed=0)
    sigmas = add("ManualSigmas", ("SIGMAS",), sigmas=noise.text)
    guider = add("BasicGuider", ("GUIDER",), {"model": network, "conditioning": condition})
    sampler = add("KSamplerSelect", ("SAMPLER",), sampler_name=noise.sampler)
    if noise.first is not None:
        scale = add("ManualSigmas", ("SIGMAS",), sigmas=f"{noise.first:.{DIGITS}f}")
        given = {"model": network, "noise": random, "sigmas": scale, "latent_image": latent}
        latent, random = add("AddNoise", ("LATENT",), given), add("DisableNoise", ("NOISE",))
    given = {"noise": random, "guider": guider, "sampler": sampler, "sigmas": sigmas, "latent_image": latent}
    latent = add("SamplerCustomAdvanced", ("LATENT", "LATENT"), given)
    if latent_factor is not None:
        latent = add("LatentMultiply", ("LATENT",), {"samples": latent}, multiplier=latent_factor)
    images = add("VAEDecode", ("IMAGE",), {"samples": latent, "vae": vae})
    add("SaveImage", (), {"images": images}, filename_prefix=name)
    return nodes


def for_server(nodes: Sequence[Node]) -> dict[str, Any]:
    """The workflow as ComfyUI's server takes it in `prompt` (in its menu: export, API)."""
    return {
        str(number): {
            "class_type": node.kind,
            "inputs": {
                **node.widgets,
                **{name: [str(source.node + 1), source.output] for name, source in node.inputs.items()},
            },
            "_meta": {"title": node.kind},
        }
        for number, node in enumerate(nodes, start=1)
    }


def for_page(nodes: Sequence[Node]) -> dict[str, Any]:
    """The workflow as ComfyUI's page opens it, a row of columns by how many nodes stand before."""
    links: list[list[Any]] = []
    taken: dict[tuple[int, int], list[int]] = {}
    inputs: list[list[dict[str, Any]]] = []
    depths: list[int] = []
    for place, node in enumerate(nodes):
        depths.append(1 + max((depths[source.node] for source in node.inputs.values()), default=-1))
        inputs.append([])
        for slot, (name, source) in enumerate(node.inputs.items()):
            kind = nodes[source.node].gives[source.output]
            links.append([len(links) + 1, source.node + 1, source.output, place + 1, slot, kind])
            taken.setdefault((source.node, source.output), []).append(len(links))
            inputs[place].append({"name": name, "type": kind, "link": len(links)})
    rows = [depths[:place].count(depth) for place, depth in enumerate(depths)]
    return {
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": [
            {
                "id": place + 1,
                "type": node.kind,
                "pos": [depths[place] * COLUMN, rows[place] * ROW],
                "size": [COLUMN - 40, ROW - 60],
                "flags": {},
                "order": place,
                "mode": 0,
                "inputs": inputs[place],
                "outputs": [
                    {"name": kind, "type": kind, "slot_index": slot, "links": taken.get((place, slot), [])}
                    for slot, kind in enumerate(node.gives)
                ],
                "properties": {"Node name for S&R": node.kind},
                "widgets_values": [*node.widgets.values(), *([FIXED] if "noise_seed" in node.widgets else [])],
            }
            for place, node in enumerate(nodes)
        ],
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }
