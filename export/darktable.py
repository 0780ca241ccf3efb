"""A raw-denoise package for darktable (5.6 and newer): ``NAME.dtmodel``, a zip of ``config.json`` and ``model_bayer.onnx``.

darktable runs a raw denoiser behind an input contract that it calls ``bayer_v1`` (darktable, ``src/common/ai/restore.h`` and
``restore_raw_bayer.c``; packages: darktable-ai, ``models/rawdenoise-nind/model.yaml``): float32 ``[1, 4, T, T]`` planes R, G1,
G2, B from the mosaic's first red pixel, ``(raw - black) / range`` times white balance, to float32 ``[1, 3, 2T, 2T]`` camera RGB
in the same frame. T is static. A manifest says which white balance, which mirroring and whether the scale is absolute.

Our contract ``bayer_vst_v1`` fits into it, with its curve, demosaic and depth-to-space moved into the graph, but for two things:

* darktable says nothing of the noise. A package is therefore made for one noise level (``--noise``), which its name and
  description state; it is balanced for a typical white balance. Away from its level it denoises too much or too little.
* darktable's tiles overlap by 32 packed pixels and are blended up to their edges, where a network sees padding instead of the
  picture. The zoo's own runner cuts a halo off; darktable cannot be told to.

The graph is verified in onnxruntime against the zoo's own pipeline. darktable itself was not run: that it takes the package is
read off its source and its own packages' manifests, of which it has had two layouts; both are written.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export import digest_of, load_source, target_module, versions
from export.onnx import convert, session
from export.verify import MIN_DB, centre_planes, compare
from zoo.data.scene import synthetic_raw
from zoo.errors import ZooError
from zoo.evaluation.bed import LEVELS, WB_GAINS
from zoo.files import replacing
from zoo.models.contracts.bayer_vst import CONTRACT, decode, encode, malvar_weight
from zoo.models.registry import ModelSpec, get_spec, nearest
from zoo.raw.noise import NoiseProfile

TILE = 512  # what darktable's own packages declare
OVERLAP = 32  # OVERLAP_PACKED of restore_raw_bayer.c, packed pixels
DEFAULT_NOISE = "iso3200"


class BayerV1(nn.Module):
    """A network of ``bayer_vst_v1`` with all that stands around it, at one noise level.

    Args:
        net: the network, in eval mode.
        noise: of white-balanced raws.

    Shape:
        float ``[1, 4, T, T]`` white-balanced linear planes, black = 0, not clipped -> ``[1, 3, 2T, 2T]`` linear camera RGB.
    """

    shot: Tensor
    read: Tensor

    def __init__(self, net: nn.Module, noise: NoiseProfile) -> None:
        super().__init__()
        self.net = net
        malvar_weight()  # cached now: built while it is traced, it becomes thousands of operators
        self.register_buffer("shot", torch.tensor([noise.shot], dtype=torch.float32))
        self.register_buffer("read", torch.tensor([noise.read], dtype=torch.float32))

    def forward(self, planes: Tensor) -> Tensor:
        x = encode(planes, self.shot, self.read)
        return decode(x, self.net(x), self.shot, self.read)


def package(
    name: str, *, noise: str = DEFAULT_NOISE, tile: int | None = None, output_dir: Path | str = "artifacts"
) -> dict[str, Any]:
    """Write, verify and describe ``<output_dir>/rawdenoise-<name>-<noise>.dtmodel``.

    Args:
        name: registered model that speaks ``bayer_vst_v1``, with shipped float weights.
        noise: one of :data:`zoo.evaluation.bed.LEVELS`.
        tile: packed side, a multiple of the model's; None for 512.
        output_dir: made if missing.

    Returns:
        ``path``, ``model``, ``noise``, ``tile``, ``halo`` (packed pixels), ``size_bytes``, ``sha256`` and ``weights_sha256``,
        ``versions``, and ``parity``, as :func:`export.verify.verify` has it, against the zoo's pipeline.

    Raises:
        ZooError: a model that cannot satisfy ``bayer_v1``, a bad level or tile, no weights, or a gate that failed.
    """
    spec = get_spec(name)
    _check(spec)
    if noise not in LEVELS:
        raise ZooError(f"unknown noise level '{noise}'{nearest(noise, LEVELS)}; choose from {', '.join(LEVELS)}")
    tile = TILE if tile is None else tile
    if tile % spec.tile_multiple or tile <= 2 * OVERLAP:
        raise ZooError(f"{name}: tile {tile} must be a multiple of {spec.tile_multiple} and larger than {2 * OVERLAP}")
    target_module("onnx")  # says so if its libraries are missing
    net, digest = load_source(name, "fp32")
    shot, read = LEVELS[noise]
    profile = NoiseProfile((shot,) * 3, (read,) * 3, "given").balanced(WB_GAINS)
    wrapped = BayerV1(net, profile).eval()
    graph = convert(wrapped, torch.zeros(1, 4, tile, tile)).SerializeToString()
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"{folder}: cannot be written to ({error.strerror}); give another --output-dir") from error
    identity = f"rawdenoise-{name}-{noise}"
    path = folder / f"{identity}.dtmodel"
    config = manifest(spec, identity, noise, tile, digest)
    with replacing(path, "give another --output-dir") as temporary:
        temporary.write_bytes(_zipped(identity, {"config.json": config, "model_bayer.onnx": graph}))
        parity = _verify(temporary, wrapped, tile)
        worst, gate = parity["worst_psnr_db"], MIN_DB["fp32"]
        if worst is not None and not worst >= gate:
            raise ZooError(
                f"{path.name}: gate failed: {worst:.1f} dB on tile {parity['worst_tile']} (gate: {gate:.0f} dB)"
            )
    return {
        "path": path.name,
        "model": name,
        "target": "darktable",
        "noise": noise,
        "tile": tile,
        "halo": spec.halo,
        "size_bytes": path.stat().st_size,
        "sha256": digest_of(path),
        "weights_sha256": digest,
        "versions": versions("onnx"),
        "parity": parity,
    }


def _check(spec: ModelSpec) -> None:
    if spec.codec is not None:
        raise ZooError(f"{spec.name} is a compressor; darktable's bayer_v1 takes a denoiser, e.g. utnet-m")
    if spec.contract != CONTRACT.name:
        raise ZooError(
            f"{spec.name} speaks {spec.contract}; darktable's bayer_v1 gives four planes and takes RGB, which only networks "
            f"of {CONTRACT.name} can be fitted to, e.g. utnet-m"
        )


def manifest(spec: ModelSpec, identity: str, noise: str, tile: int, weights_sha256: str) -> bytes:
    """``config.json``: the contract's words in both places where versions of darktable look for them."""
    contract = {
        "input_kind": "bayer_v1",
        "bayer_orientation": "force_rggb",
        "edge_pad": "mirror_cropped",
        "wb_norm": "as_shot",
        "output_scale": "absolute",
    }
    config = {
        "id": identity,
        "name": f"raw denoise {spec.name} ({noise})",
        "description": f"raw-zoo {spec.name}, joint denoising and demosaicing, for the noise of {noise}",
        "task": "rawdenoise",
        "arch": spec.family,
        "backend": "onnx",
        "version": "1.0",
        "tiling": True,
        "num_inputs": 1,
        "attributes": {
            "input_sizes": [tile],
            "model_bayer": contract,
            "variants": {"bayer": {"onnx": "model_bayer.onnx", **contract}},
        },
        "model_card": {"license": spec.licence, "weights_sha256": weights_sha256},
    }
    return (json.dumps(config, indent=2) + "\n").encode()


def _zipped(folder: str, files: dict[str, bytes]) -> bytes:
    """A zip of files in a folder; the same bytes for the same files."""
    room = io.BytesIO()
    with zipfile.ZipFile(room, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(f"{folder}/{name}")  # of 1980
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return room.getvalue()


@torch.no_grad()
def _verify(path: Path, wrapped: BayerV1, tile: int) -> dict[str, Any]:
    """Parity of the packed graph with the zoo's pipeline, told the same noise, at all noise levels of the bed."""
    told = wrapped.shot, wrapped.read, torch.tensor([WB_GAINS])
    tiles, expected = [], {}
    for level, (shot, read) in LEVELS.items():
        planes = centre_planes(synthetic_raw(2 * tile, 2 * tile, shot=shot, read=read), tile)
        x = CONTRACT.encode(torch.from_numpy(planes), *told)
        expected[f"scene-{level}"] = CONTRACT.decode(x, wrapped.net(x), *told).numpy()
        tiles.append((f"scene-{level}", planes))
    loaded = packed_session(path)
    report = compare(lambda planes: loaded.run(None, {"input": planes})[0], tiles, expected)
    return report | {"reference": "torch fp32 pipeline"}


def packed_session(path: Path, threads: int = 1) -> Any:
    """An onnxruntime session of the graph in a package: ``input`` ``[1, 4, T, T]`` -> ``output`` ``[1, 3, 2T, 2T]``."""
    with zipfile.ZipFile(path) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/model_bayer.onnx")]
        return session(archive.read(name), threads)
