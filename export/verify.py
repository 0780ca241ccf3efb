"""Does the file compute what the network does? Parity on mosaic tiles, and the gates an export must pass."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export import ARTEFACTS, SUFFIXES, TARGETS, load_source, target_module
from zoo import weights
from zoo.errors import ZooError
from zoo.evaluation.bed import LEVELS
from zoo.models.contracts import DEFAULT_CONTRACT, Contract, get_contract
from zoo.raw.image import RawImage

REAL_RAWS = (
    "d455_static_pairs.npz",
    "phone_a71_iso500_fabric.npz",
    "gopr0024_crop.npz",
    "canon_550d_ml_colorchart.npz",
)

# Gates. Decibels are of the difference against the reference's range of values over all tiles. int8 is Core ML's, with fp16
# between the integers: 46.9 to 52 dB measured, which moved the mean PSNR of six pictures by 0.003 dB at most; what says whether
# its integers are right is the same program at fp32, below.
MIN_DB = {"fp32": 90.0, "fp16": 50.0, "int8": 45.0}
# Core ML at fp32: share of outputs that may differ from the integer reference, and by how many int8 steps. A sum within float
# rounding of a tie flips (so does an addition, which XNNPACK does in fixed point), and a flipped value flips some of those that
# depend on it; in flat areas a whole region at once. Measured: 1.4e-3 to 2.3e-2 of the outputs, up to 5 steps (utnet-m, of which
# no layer by itself flips more than 1.5e-5). That is at tiles of 256. One flip in a pyramid reaches half of a tile of 64: of an
# earlier utnet-m's 4.4e-2 differed, by up to 4 steps (no layer flips more than 6e-5), so Core ML's share grows as tiles shrink
# below 128.
MAX_FLIPPED_COREML = 4e-2
MAX_FLIP_STEPS = 6
_TIE = 1e-3  # of a step

# ONNX may differ by as many steps: onnxruntime convolves in integers, but adds in float32. Measured at tiles of 64 and 256: no
# difference to 9e-4 of the outputs, 2 steps; one convolution that rounds differently somewhere in the network makes 6e-2.
MAX_FLIPPED_ONNX = 2e-2


def verify(path: Path, *, data: Path | None = None) -> dict[str, Any]:
    """Run an artefact and its reference on the same tiles.

    The reference of int8 is the integer network, that of fp32 and fp16 is PyTorch in float32. Core ML int8 is checked twice:
    the file as it is (fp16 between the integers) and the same program at fp32. ONNX int8 adds in float32, so that its differences
    are counted in steps too.

    Args:
        path: an artefact of ``zoo export``.
        data: folder with ``raw/``; its mosaics are added to the synthetic ones.

    Returns:
        ``reference``, ``tiles`` (one row each: ``max_abs``, ``psnr_db`` or None for equal, ``differing`` share) and, over all
        of them, ``max_abs``, ``worst_psnr_db``, ``worst_tile``, ``differing``; of int8, for Core ML also ``fp32_compute``, for
        ONNX ``max_steps``.

    Raises:
        ZooError: not an artefact of this zoo, or of weights that this version does not hold; no such data.
    """
    from export.target import SHAPE_KEYS, contract_in

    check_data(data)
    target = target_of(path)
    module = target_module(target)
    metadata = module.read_metadata(path)
    source, digest = load_source(metadata["model"], metadata["precision"], metadata.get("half", ""))
    if digest != metadata["weights_sha256"]:
        those = weights.described(metadata["model"])
        raise ZooError(
            f"{path}: was made from other weights than {those}; export it again, or name its own in --weights"
        )
    int8 = metadata["precision"] == "int8"
    from zoo.inference.runner import TorchRunner

    reference: Any = source.integer() if int8 else TorchRunner(source)
    tile = int(metadata["tile"])
    contract = contract_in(metadata)
    tiles = list(_latent_tiles(metadata, data) if metadata.get("half") == "decoder" else tiles_of(tile, contract, data))
    if int8 and target in ("coreml", "onnx"):  # the other two multiply by the inverse, as the reference does
        tiles = [(name, off_ties(x, reference.input_scale)) for name, x in tiles]
    expected = {name: reference(x) for name, x in tiles}
    report = compare(module.runner(path), tiles, expected)
    report["reference"] = "integer" if int8 else "torch fp32"
    report["largest_activation"] = _largest_activation(source, tiles) if metadata["precision"] == "fp16" else None
    # One int8 step of the output, to count differences in.
    step = min(float(np.diff(np.unique(y)).min()) for y in expected.values() if len(np.unique(y)) > 1) if int8 else 0.0
    if target == "onnx" and int8:
        report["max_steps"] = round(report["max_abs"] / step)
    if target == "coreml" and int8:
        with tempfile.TemporaryDirectory() as folder:
            twin = Path(folder) / path.name
            named = {key: metadata[key] for key in SHAPE_KEYS if key in metadata}
            module.write(source, precision="int8", tile=tile, metadata=named, path=twin, compute_precision="fp32")
            compared = compare(module.runner(twin), tiles, expected)
            report["fp32_compute"] = {
                "differing": compared["differing"],
                "max_steps": round(compared["max_abs"] / step),
                "worst_psnr_db": compared["worst_psnr_db"],
            }
    return report


def check_gates(name: str, metadata: dict[str, str], parity: dict[str, Any], audit: dict[str, Any]) -> None:
    """Refuse an artefact that is not what it should be.

    Raises:
        ZooError: names the gate, the figure and the bound.
    """
    precision, target, tile = metadata["precision"], audit["target"], int(metadata["tile"])
    if metadata.get("half") == "decoder":  # counts positions; here packed pixels
        tile *= int(metadata["stride"]) // 2
    failures = []
    worst = parity["worst_psnr_db"]
    if precision == "int8" and target == "onnx":
        if parity["differing"] > MAX_FLIPPED_ONNX or parity["max_steps"] > MAX_FLIP_STEPS:
            failures.append(
                f"{parity['differing']:.2e} of the outputs differ from the integer reference, by up to "
                f"{parity['max_steps']} steps (gates: {MAX_FLIPPED_ONNX:.0e}, {MAX_FLIP_STEPS})"
            )
    elif precision == "int8" and target != "coreml":
        if parity["differing"]:
            failures.append(f"{parity['differing']:.2e} of the outputs differ from the integer reference (gate: none)")
    elif worst is not None and not worst >= MIN_DB[precision]:
        failures.append(f"{worst:.1f} dB on tile {parity['worst_tile']} (gate: {MIN_DB[precision]:.0f} dB)")
    if "fp32_compute" in parity:
        twin = parity["fp32_compute"]
        share = MAX_FLIPPED_COREML * max(1.0, 128 / tile)
        if twin["differing"] > share or twin["max_steps"] > MAX_FLIP_STEPS:
            failures.append(
                f"at fp32, {twin['differing']:.2e} of the outputs differ by up to {twin['max_steps']} steps "
                f"(gates: {share:.0e}, {MAX_FLIP_STEPS})"
            )
    if precision == "int8" and audit["conv_int8"] != audit["conv_total"]:
        failures.append(f"only {audit['conv_int8']} of {audit['conv_total']} convolutions are delegated and int8")
    # Edge conversions of fp16 files are portable kernels; anything that computes belongs into the delegate.
    left = [op for op in audit["not_delegated"] if "->" not in op]
    if left:
        failures.append(f"left outside the delegate: {', '.join(audit['not_delegated'])}")
    if failures:
        raise ZooError(f"{name}: gate failed: {'; '.join(failures)}")


def check_data(data: Path | None) -> None:
    """Refuse a folder of real raws that is none, rather than verify on synthetic ones alone.

    Raises:
        ZooError: it has no ``raw/``.
    """
    if data is not None and not (data / "raw").is_dir():
        raise ZooError(
            f"{data}: no folder with raw/ to verify on; give another --data, or none for the synthetic scene"
        )


def tiles_of(tile: int, contract: Contract, data: Path | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """Network inputs ``[1, in_channels, tile, tile]`` from our synthetic scene at four noise levels, and from real raws."""
    from zoo.data.scene import synthetic_raw

    for level, (shot, read) in LEVELS.items():
        yield f"scene-{level}", encode_centre(synthetic_raw(2 * tile, 2 * tile, shot=shot, read=read), tile, contract)
    if data is not None:
        from zoo.raw import read_raw

        for file in REAL_RAWS:
            if (data / "raw" / file).exists():
                yield file.split(".")[0], encode_centre(read_raw(data / "raw" / file), tile, contract)


@torch.no_grad()
def _latent_tiles(metadata: dict[str, str], data: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    """What the float encoder makes of :func:`tiles_of`, rounded at the middle of the quality scale: inputs of a decoder."""
    from zoo.models.compressor import Compressor
    from zoo.models.registry import create_model

    model = create_model(metadata["model"], pretrained=True)
    assert isinstance(model, Compressor)
    side = int(metadata["tile"]) * int(metadata["stride"]) // 2
    for name, x in tiles_of(side, get_contract(metadata["contract"]), data):
        yield name, model.coded(torch.from_numpy(x), torch.tensor([0.5])).numpy()


def encode_centre(raw: RawImage, tile: int, contract: Contract | None = None) -> np.ndarray:
    """The network's input for the centre of a Bayer raw, mirrored where the raw is smaller than the tile.

    Args:
        raw: any phase.
        tile: packed side.
        contract: of the network; None for the compact models'.

    Returns:
        float32 ``[1, in_channels, tile, tile]``.
    """
    contract = contract or get_contract(DEFAULT_CONTRACT)
    noise = raw.noise.balanced(raw.wb)
    told = torch.tensor([noise.shot]), torch.tensor([noise.read]), torch.tensor([raw.wb])
    x = contract.encode(torch.from_numpy(centre_planes(raw, tile)), *told)
    return np.ascontiguousarray(x.numpy(), np.float32)


def centre_planes(raw: RawImage, tile: int) -> np.ndarray:
    """The white-balanced planes of the centre of a Bayer raw, float32 ``[1, 4, tile, tile]``, mirrored where it is smaller."""
    planes, _ = raw.packed()
    h, w = planes.shape[1:]
    top, left = max(0, (h - tile) // 2), max(0, (w - tile) // 2)
    planes = planes[:, top : top + tile, left : left + tile]
    missing = [(0, 0), (0, tile - planes.shape[1]), (0, tile - planes.shape[2])]
    gains = np.array([raw.wb[0], 1, 1, raw.wb[2]], np.float32)[:, None, None]
    return (np.pad(planes, missing, mode="symmetric") * gains)[None]


def off_ties(x: np.ndarray, scale: float) -> np.ndarray:
    """The same input, but for values within a thousandth of a step of a tie between two int8 steps, which are moved from there.

    Runtimes divide by the scale or multiply by its inverse. One value of 49,152 that onnxruntime rounded to the other side made
    5e-2 and 8e-2 of bayer-codec-m's latents differ at two tiles of 64, with every layer behind it exact.
    """
    steps = x / np.float32(scale)
    beyond = steps - np.floor(steps) - np.float32(0.5)
    near = np.abs(beyond) < _TIE
    return np.where(near, x + np.where(beyond < 0, -1, 1).astype(np.float32) * np.float32(2 * _TIE * scale), x)


def compare(runner: Any, tiles: list[tuple[str, np.ndarray]], expected: dict[str, np.ndarray]) -> dict[str, Any]:
    """Run tiles and compare with what is expected of each: ``tiles`` and what follows it in :func:`verify`'s report."""
    rows: dict[str, dict[str, Any]] = {}
    span = max(float(y.max()) for y in expected.values()) - min(float(y.min()) for y in expected.values())
    for name, x in tiles:
        error = np.abs(runner(x).astype(np.float64) - expected[name])
        mse = float((error**2).mean())
        rows[name] = {
            "max_abs": float(error.max()),
            "psnr_db": _decibels(span**2 / mse) if mse else None,
            "differing": float((error != 0).mean()),
        }
    unequal = {n: r["psnr_db"] for n, r in rows.items() if r["psnr_db"] is not None}
    worst = min(unequal, key=lambda n: unequal[n]) if unequal else None
    return {
        "tiles": rows,
        "max_abs": max(r["max_abs"] for r in rows.values()),
        "worst_psnr_db": unequal[worst] if worst else None,
        "worst_tile": worst,
        "differing": float(np.mean([r["differing"] for r in rows.values()])),
    }


def _decibels(ratio: float) -> float:
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf  # an infinite or undefined error is no match at all


@torch.no_grad()
def _largest_activation(model: torch.nn.Module, tiles: list[tuple[str, np.ndarray]]) -> float:
    """Largest magnitude any layer puts out over the tiles (fp16 holds up to 65504)."""
    largest = 0.0

    def watch(_: torch.nn.Module, __: object, output: torch.Tensor) -> None:
        nonlocal largest
        largest = max(largest, float(output.abs().max()))

    hooks = [m.register_forward_hook(watch) for m in model.modules() if not list(m.children())]
    for _, x in tiles:
        model(torch.from_numpy(x))
    for hook in hooks:
        hook.remove()
    return largest


def target_of(path: Path) -> str:
    """The target that an artefact is for, by its suffix.

    Raises:
        ZooError: no such file, or no artefact.
    """
    if not path.exists():
        raise ZooError(f"{path}: no such artefact; `zoo export` writes one")
    if path.suffix in ARTEFACTS:
        return target_module(ARTEFACTS[path.suffix]).TARGET
    raise ZooError(f"{path}: is no {', '.join(f'.{SUFFIXES[t]}' for t in TARGETS)}; `zoo export` writes them")
