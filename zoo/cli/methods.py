"""From a name on the command line to a method that can be measured, with the facts that go into its evidence."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.evaluation.method import Method
    from zoo.inference.runner import TileRunner

CLASSICAL = ("classical", "fp64")  # target and precision of the baselines' evidence


@dataclass(frozen=True)
class Opened:
    """A method ready to run.

    Attributes:
        method: raw in, picture out.
        name: as typed.
        target, precision: runtime; :data:`CLASSICAL` for baselines.
        facts: further fields of :class:`zoo.evaluation.records.QualityRecord`: versions, licence, settings, cost,
            weights_sha256.
    """

    method: Method
    name: str
    target: str
    precision: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name, with the runtime of a network."""
        return self.name if self.target == CLASSICAL[0] else f"{self.name} {self.target} {self.precision}"


def open_method(
    name: str,
    *,
    target: str | None = None,
    precision: str | None = None,
    tile: int | None = None,
    threads: int | None = None,
    quantized: Path | None = None,
) -> Opened:
    """The method of a name.

    Args:
        name: registered model, or baseline, which takes none of the rest.
        target, precision, tile, threads: of the runtime, see :func:`zoo.cli.runtimes.open_runner`.
        quantized: file of ``zoo quantize`` to run in place of a runtime.

    Raises:
        ZooError: unknown name, missing library, no weights, or a runtime that cannot run it.
    """
    from zoo.baselines import get_baseline, list_baselines
    from zoo.models.registry import list_models, nearest

    if name in list_baselines():
        baseline = get_baseline(name)
        facts: dict[str, Any] = {"settings": dict(baseline.settings), "licence": baseline.licence}
        return Opened(baseline, name, *CLASSICAL, facts | {"versions": package_versions() | baseline.versions()})
    if name not in list_models():
        known = [*list_models(), *list_baselines()]
        raise ZooError(f"unknown method '{name}'{nearest(name, known)}; choose from {', '.join(known)}")
    from export import TARGETS
    from zoo import weights
    from zoo.cli.runtimes import open_runner
    from zoo.evaluation import records
    from zoo.evaluation.network import network_method
    from zoo.models.registry import get_spec

    spec = get_spec(name)
    if quantized is None:
        _, runner = open_runner(name, target, precision, tile, threads)
    else:
        runner = _integer_of(name, quantized, target)
    weights_sha256: str | None = None  # passthrough has none
    if spec.params:
        file = quantized or weights.verified(name, quantized=runner.precision == "int8")
        weights_sha256 = records.sha256(file)
    facts = {
        "weights_sha256": weights_sha256,
        "licence": spec.licence,
        "cost": {"params": spec.params, "gmac_per_mp": spec.gmac_per_mp},
        "versions": package_versions() | runtime_version(runner.target),
    }
    if runner.target in TARGETS and weights_sha256:  # what it runs may be older than the weights
        check_artefact(name, runner, weights_sha256)
    return Opened(network_method(runner, spec), name, runner.target, runner.precision, facts)


def _integer_of(name: str, path: Path, target: str | None) -> TileRunner:
    """The integer network of a file of ``zoo quantize``; its evidence is filed under ``int8-ptq`` or ``int8-qat``.

    Raises:
        ZooError: no such file, of another model, or another target was asked for.
    """
    from quantize import QuantizedModel

    if target not in (None, "integer"):
        raise ZooError(f"--quantized runs as integer reference, not on {target}; leave --target out")
    quantized = QuantizedModel.load(path)
    if quantized.name != name:
        raise ZooError(f"{path}: is of {quantized.name}, not of {name}")
    runner = quantized.integer()
    runner.precision = f"int8-{quantized.recipe}"
    return runner


def check_artefact(name: str, runner: TileRunner, weights_sha256: str) -> None:
    """Refuse an artefact that was exported before the weights changed: its scores would be filed under the new ones.

    Raises:
        ZooError: it is older.
    """
    import export
    from zoo import weights
    from zoo.cli.runtimes import cache

    assert runner.tile is not None
    path = export.artifact_path(name, runner.target, runner.precision, runner.tile, cache())
    if export.target_module(runner.target).read_metadata(path).get("weights_sha256") != weights_sha256:
        those = weights.described(name)
        raise ZooError(f"{path}: was exported from other weights than {those}; delete it to have it made anew")


def package_versions() -> dict[str, str]:
    """Versions of this project and of what all of it runs on, for evidence."""
    import numpy
    import torch

    from zoo import __version__

    return {
        "raw-zoo": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "torch": torch.__version__,
    }


def runtime_version(target: str) -> dict[str, str]:
    """Version of what runs a target's networks; empty for torch."""
    from importlib.metadata import PackageNotFoundError, version

    package = {
        "executorch": "executorch",
        "litert": "litert-torch",
        "coreml": "coremltools",
        "onnx": "onnxruntime",
        "integer": "torchao",
    }.get(target)
    try:
        return {package: version(package)} if package else {}
    except PackageNotFoundError:  # a runtime may come from another package than the pinned one
        return {}
