"""From a model's and a runtime's name to a runner: here the CLI reaches into ``quantize`` and ``export``."""

from __future__ import annotations

import sys
from pathlib import Path

from export import ARTEFACTS, PRECISIONS, exported, target_module, weights_digest
from zoo import weights
from zoo.errors import ZooError
from zoo.inference.runner import TileRunner, TorchRunner
from zoo.models.registry import check_denoiser, create_model, nearest

RUNTIMES = ("torch", "integer", *ARTEFACTS.values())
_FOLDER = Path("artifacts")


def open_runner(
    model: str,
    runtime: str | None = None,
    precision: str | None = None,
    tile: int | None = None,
    threads: int | None = None,
    half: str = "",
) -> tuple[str, TileRunner]:
    """Make a model ready to run.

    Args:
        model: registered name, or an artefact that `zoo export` wrote (``.pte``, ``.tflite``, ``.onnx``), which knows the rest.
        runtime: one of :data:`RUNTIMES`; None for torch, or the artefact's.
        precision: None for the runtime's own: fp32 for torch, else int8 where quantised weights ship.
        tile: packed side that executorch and litert are exported for; None for the exporters' own.
        threads: None for the runtime's own choice.
        half: ``encoder`` or ``decoder`` of a compressor, which is then a registered name; empty for a denoiser.

    Returns:
        The model's registered name, and the runner.

    Raises:
        ZooError: unknown runtime or precision, no weights, or the artefact is missing, foreign or contradicts the rest.
    """
    for what, given, known in (("runtime", runtime, RUNTIMES), ("precision", precision, PRECISIONS)):
        if given is not None and given not in known:
            raise ZooError(f"unknown {what} '{given}'{nearest(given, known)}; choose from {', '.join(known)}")
    suffix = Path(model).suffix
    if suffix in ARTEFACTS:
        return _open_artefact(Path(model), ARTEFACTS[suffix], runtime, precision, threads)
    if not half:
        check_denoiser(model, "denoise by itself")
    runtime = runtime or "torch"
    only = {"torch": "fp32", "integer": "int8"}.get(runtime)
    if only is not None and precision not in (None, only):
        raise ZooError(
            f"runtime {runtime} runs {only}, not {precision}; executorch, litert and onnx run all precisions"
        )
    if runtime == "torch":
        network = create_model(model, pretrained=True)
        return model, TorchRunner(network.get_submodule(half) if half else network, threads)
    if runtime == "integer":
        from quantize import QuantizedModel

        create_model(model)  # an unknown name says so, rather than that it has no weights
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        return model, QuantizedModel.load(weights.verified(model, quantized=True, half=half)).integer()
    path = _exported(model, runtime, precision, tile, half)
    if half:
        return open_half(path, half, threads)
    return _open_artefact(path, runtime, runtime, precision, threads)


def _exported(model: str, target: str, precision: str | None, tile: int | None, half: str) -> Path:
    """The artefact of a model with its present weights, exported now if it is not there yet."""

    def announce(path: Path) -> None:
        print(f"exporting {path}, which is needed once", file=sys.stderr)

    file = weights.path(model, quantized=True, half=half)
    precision = precision or ("int8" if weights.listed(file, weights.card(model)) else "fp32")
    return exported(
        model, target=target, precision=precision, tile=tile, output_dir=cache(), half=half, announce=announce
    )


def cache() -> Path:
    """Where artefacts lie that are made on the way: of one's own weights in a folder by themselves."""
    return _FOLDER / weights.label()


def _open_artefact(
    path: Path, target: str, runtime: str | None, precision: str | None, threads: int | None
) -> tuple[str, TileRunner]:
    if runtime not in (None, target):
        raise ZooError(f"{path}: is for {target}, not {runtime}; leave --runtime out")
    module = target_module(target)
    metadata = module.read_metadata(path)
    if precision not in (None, metadata["precision"]):
        raise ZooError(f"{path}: is {metadata['precision']}, not {precision}; leave --precision out")
    if "model" not in metadata:
        raise ZooError(f"{path}: does not say which model it is; write it with `zoo export`")
    check_denoiser(metadata["model"], "denoise by itself")
    return metadata["model"], module.runner(path, threads=threads or 1)


def open_half(path: Path, half: str, threads: int | None = None) -> tuple[str, TileRunner]:
    """Half of a compressor from an artefact of `zoo export`.

    Args:
        path: ``.pte``, ``.tflite``, ``.mlpackage`` or ``.onnx``.
        half: the one that is wanted, ``encoder`` or ``decoder``.
        threads: None for one.

    Returns:
        The compressor's name, and the runner.

    Raises:
        ZooError: no artefact of that half, or one of other weights than the model's.
    """
    if path.suffix not in ARTEFACTS:
        raise ZooError(f"{path}: is no {', '.join(ARTEFACTS)}; `zoo export` writes them")
    module = target_module(ARTEFACTS[path.suffix])
    metadata = module.read_metadata(path)
    if metadata.get("half") != half:
        raise ZooError(f"{path}: is no {half} of a compressor; `zoo export bayer-codec-m` writes one")
    if metadata["weights_sha256"] != weights_digest(metadata["model"], metadata["precision"], half):
        those = weights.described(metadata["model"])
        raise ZooError(
            f"{path}: was exported from other weights than {those}; export it anew, or name its own in --weights"
        )
    return metadata["model"], module.runner(path, threads=threads or 1)
