"""Networks as files for phones: convert, verify, describe. One file per target (see :mod:`export.target`)."""

from __future__ import annotations

import datetime
import hashlib
import importlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from zoo import weights
from zoo.errors import ZooError
from zoo.files import alone, replacing
from zoo.models.contracts import get_contract
from zoo.models.registry import DEFAULT_MODEL, ModelSpec, check_int8, create_model, get_spec, halves, nearest

SUFFIXES = {"executorch": "pte", "litert": "tflite", "coreml": "mlpackage", "onnx": "onnx"}
ARTEFACTS = {f".{suffix}": target for target, suffix in SUFFIXES.items()}
TARGETS = tuple(sorted(SUFFIXES))
PRECISIONS = ("fp32", "fp16", "int8")
LEAST_DEFAULT_TILE = 256
MANIFEST = "manifest.json"
PACKAGES = {
    "coreml": ("coremltools",),
    "executorch": ("executorch",),
    "litert": ("litert-torch", "ai-edge-litert"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
}


@dataclass(frozen=True)
class ExportResult:
    """A verified artefact.

    Attributes:
        path: the file (Core ML: the folder).
        model, target, precision, tile: what it is; tile in packed pixels (latent positions of a decoder).
        size_bytes, sha256: of the file (of a folder: over its files in order).
        weights_sha256: of the weights it was made from.
        parity: what verification measured, see :func:`export.verify.verify`.
        audit: operators and their types, see :func:`export.target.audit_report`.
        half: of a compressor: ``encoder`` or ``decoder``, else empty.
    """

    path: Path
    model: str
    target: str
    precision: str
    tile: int
    size_bytes: int
    sha256: str
    weights_sha256: str
    parity: dict[str, Any]
    audit: dict[str, Any]
    half: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-able record; the path is the file's name, so that a folder of artefacts can be moved."""
        return asdict(self) | {"path": self.path.name}


def target_module(target: str) -> ModuleType:
    """The file of a target.

    Raises:
        ZooError: unknown target, or its libraries are not installed.
    """
    if target not in TARGETS:
        raise ZooError(f"unknown target '{target}'{nearest(target, TARGETS)}; choose from {', '.join(TARGETS)}")
    for package in PACKAGES[target]:
        try:
            version(package)
        except PackageNotFoundError as error:
            raise ZooError(
                f"target {target} needs {package}; install it with: pip install 'raw-zoo[{target}]'"
            ) from error
    return importlib.import_module(f"export.{target}")


def artifact_path(
    name: str,
    target: str,
    precision: str = "int8",
    tile: int | None = None,
    output_dir: Path | str = "artifacts",
    half: str = "",
) -> Path:
    """Where :func:`export` puts an artefact: ``<name>[-<half>]-<target>-<precision>-<tile>.<suffix>``; None: default tile."""
    spec = get_spec(name)
    side = input_side(spec, default_tile(spec) if tile is None else tile, half)
    part = f"{name}-{half}" if half else name
    return Path(output_dir) / f"{part}-{target}-{precision}-{side}.{target_module(target).SUFFIX}"


def input_side(spec: ModelSpec, tile: int, half: str) -> int:
    """Side of what a network is fed: of a decoder, the latent positions for encoder tiles of ``tile`` packed pixels."""
    if half != "decoder" or spec.codec is None:
        return tile
    return (tile - 2 * spec.margin) // spec.tile_multiple + 2 * spec.codec.decoder_halo


def default_tile(spec: ModelSpec) -> int:
    """256 packed pixels, or four margins if that is more: at least a quarter of each tile is then new picture."""
    least = max(LEAST_DEFAULT_TILE, 4 * spec.margin)
    return -(-least // spec.tile_multiple) * spec.tile_multiple


def export(
    name: str = DEFAULT_MODEL,
    *,
    target: str,
    precision: str = "int8",
    tile: int | None = None,
    output_dir: Path | str = "artifacts",
    data: Path | None = None,
    half: str = "",
) -> ExportResult:
    """Convert a model with its shipped weights, verify the file, and only then give it its name.

    Args:
        name: registered model.
        target: one of :data:`TARGETS`.
        precision: ``fp32``, ``fp16`` or ``int8`` (from the QAT weights).
        tile: side of the packed input, a multiple of the model's tile multiple; None for :func:`default_tile`.
        output_dir: made if missing; its ``manifest.json`` is brought up to date.
        data: folder with ``raw/``, whose mosaics are then verified on beside the synthetic ones.
        half: ``encoder`` or ``decoder`` of a compressor, which are two files; ``tile`` is the encoder's for both.

    Raises:
        ZooError: a bad request, a manifest that is none, or a gate that failed (the line says which); nothing is left behind.
    """
    from export.verify import check_data, check_gates, verify

    module, tile = target_module(target), check_model(name, precision, tile)
    spec = get_spec(name)
    if half not in halves(name):
        raise ZooError(f"{name} is exported as {' and '.join(halves(name)) or 'a whole'}, not as '{half}'")
    check_data(data)
    source, digest = load_source(name, precision, half)
    path, tile = artifact_path(name, target, precision, tile, output_dir, half), input_side(spec, tile, half)
    folder = Path(output_dir)
    _read_manifest(folder)  # what is wrong with it is told before minutes of conversion
    try:
        folder.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=".zoo-", dir=folder))
    except OSError as error:
        raise ZooError(f"{folder}: cannot be written to ({error.strerror}); give another --output-dir") from error
    try:
        staged = workshop / path.name
        module.write(
            source,
            precision=precision,
            tile=tile,
            metadata=describe(spec, digest, precision, target, half),
            path=staged,
        )
        parity = verify(staged, data=data)
        audit = module.audit(staged)
        check_gates(path.name, module.read_metadata(staged), parity, audit)
        result = ExportResult(
            path, name, target, precision, tile, audit["size_bytes"], digest_of(staged), digest, parity, audit, half
        )
        with alone(folder):
            manifest = _read_manifest(folder)
            if path.is_dir():
                shutil.rmtree(path)
            staged.replace(path)
            _write_manifest(folder, manifest, result)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return result


def check_model(name: str, precision: str, tile: int | None) -> int:
    """The tile that :func:`export` takes, where a model has that precision and its tiles leave something.

    Raises:
        ZooError: unknown model or precision, int8 of a float reference, a tile of another multiple or within its own margin.
    """
    if precision not in PRECISIONS:
        raise ZooError(
            f"unknown precision '{precision}'{nearest(precision, PRECISIONS)}; choose from {', '.join(PRECISIONS)}"
        )
    spec = get_spec(name)
    if precision == "int8":
        check_int8(name)
    tile = default_tile(spec) if tile is None else tile
    # The margin, not the halo, is what a tile loses on each side. A decoder's tile follows and has as many positions left.
    if tile % spec.tile_multiple or tile <= 2 * spec.margin:
        raise ZooError(
            f"{name}: tile {tile} must be a multiple of {spec.tile_multiple} and larger than twice the margin of {spec.margin}; "
            f"the smallest is {2 * spec.margin + spec.tile_multiple}"
        )
    return tile


def exported(
    name: str,
    *,
    target: str,
    precision: str = "int8",
    tile: int | None = None,
    output_dir: Path | str = "artifacts",
    half: str = "",
    announce: Callable[[Path], object] | None = None,
) -> Path:
    """The artefact of a model with today's weights; :func:`export` makes it if none is there, or one of other weights.

    Args:
        name, target, precision, tile, output_dir, half: as of :func:`export`.
        announce: is told the path before an export, which takes a while.

    Raises:
        ZooError: as of :func:`export`.
    """
    path = artifact_path(name, target, precision, tile, output_dir, half)
    digest = weights_digest(name, precision, half)
    if not path.exists() or target_module(target).read_metadata(path).get("weights_sha256") != digest:
        if announce is not None:
            announce(path)
        export(name, target=target, precision=precision, tile=tile, output_dir=output_dir, half=half)
    return path


def load_source(name: str, precision: str, half: str = "") -> tuple[Any, str]:
    """What an artefact is written from, and the sha256 of its weights (empty for a model without any); ``half`` of a compressor.

    Raises:
        ZooError: no weights, or int8 of a float reference.
    """
    digest = weights_digest(name, precision, half)
    if not digest:
        return create_model(name), ""
    if precision == "int8":
        from quantize import QuantizedModel

        return QuantizedModel.load(weights.path(name, quantized=True, half=half)), digest
    from zoo.models.layers import fold_norms

    model = create_model(name, pretrained=True)
    return fold_norms(model.get_submodule(half) if half else model), digest


def weights_digest(name: str, precision: str, half: str = "") -> str:
    """sha256 of the weights that an artefact is written from; empty for a model without any.

    Raises:
        ZooError: no weights, or int8 of a float reference.
    """
    if precision == "int8":
        check_int8(name)
    elif get_spec(name).params == 0:
        return ""
    file = weights.verified(name, quantized=precision == "int8", half=half)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def describe(spec: ModelSpec, weights_sha256: str, precision: str, target: str, half: str = "") -> dict[str, str]:
    """The contract in words, as it is embedded in every artefact's own metadata."""
    contract = get_contract(spec.contract)
    words, own = dict(contract.words), {"noise": "none: tell it S = O = 0"} if spec.task == "demosaic" else {}
    if (codec := spec.codec) is not None:
        from zoo.codec.tables import load_tables
        from zoo.models.contracts.bayer_codec import BayerCodecContract

        assert isinstance(contract, BayerCodecContract)
        words = contract.words_of(half, codec.latents, codec.channels(half) - codec.latents, codec.stride)
        tables, _ = load_tables(weights.verified_tables(spec.name))
        own |= {"half": half, "latent_channels": str(codec.channels(half)), "stride": str(codec.stride)}
        own |= {"twins": str(codec.twins)} if half == "encoder" else {"fine": str(codec.fine)}
        # What the header of a file names its model by.
        own |= {"float_weights_sha256": digest_of(weights.verified(spec.name)), "tables_sha256": tables.sha256.hex()}
        if half == "decoder":
            edge = "repeat the edge positions of the grid of latents by at least the halo"
            own |= dict.fromkeys(("halo", "margin"), str(codec.decoder_halo)) | {
                "tile_multiple": "1",
                "edge": edge,
            }
    return {
        "model": spec.name,
        "task": spec.task,
        "contract": spec.contract,
        **words,
        "halo": str(spec.halo),
        "tile_multiple": str(spec.tile_multiple),
        "margin": str(spec.margin),
        "tiles": "tiles start at multiples of tile_multiple and overlap by twice the margin, which is not kept",
        "edge": "mirror the mosaic (reflect without repeating the edge) by at least the halo",
        "licence": spec.licence,
        "weights_sha256": weights_sha256,
        "versions": json.dumps(versions(target), sort_keys=True),
        **own,
    }


def versions(target: str, *more: str) -> dict[str, str]:
    """Versions of what writes and runs a target's files here, and of ``more`` packages."""
    return {package: version(package) for package in ("torch", *more, *PACKAGES[target])}


def digest_of(path: Path) -> str:
    """sha256 of a file; of a folder over relative names and contents of its files, sorted."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(str(file.relative_to(path)).encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    """What the folder's manifest says; an empty one where there is none yet.

    Raises:
        ZooError: it cannot be read, or was not written here.
    """
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {"artifacts": {}}
    except (OSError, ValueError):
        manifest = None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("artifacts"), dict):
        raise ZooError(
            f"{file}: cannot be read as a manifest of `zoo export`; move it away, or give another --output-dir"
        )
    return manifest


def _write_manifest(folder: Path, manifest: dict[str, Any], result: ExportResult) -> None:
    """The manifest with one artefact more; those that were deleted since are not listed."""
    file = folder / MANIFEST
    stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    manifest["artifacts"][result.path.name] = result.to_json() | {"exported": stamp}
    manifest["artifacts"] = {k: v for k, v in sorted(manifest["artifacts"].items()) if (folder / k).exists()}
    with replacing(file, "give another --output-dir") as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")
