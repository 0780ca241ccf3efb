"""Measures peers with their own weights on the zoo's benchmarks, and leaves evidence as ``zoo evaluate`` does.

    python tools/peers.py NAME ... --data DIR [--peers DIR] [--benchmark bayer|demosaic|pairs] [--sets kodak,mcmaster]
        [--noise iso800,iso3200] [--limit N]

Names: ``peer-pmrid+menon``, ``peer-pmrid+demosaicnet``, ``peer-demosaicnet``, ``peer-demosaicnet-noise``,
``peer-deep-demosaick``, ``peer-deep-demosaick-noisy``. The weights are the peers' own files and no part of this project:
``--peers`` points at a folder with ``pmrid/torch_pretrained.ckp``, ``demosaicnet/bayer.pth``,
``demosaicnet/caffe_bayer_noise.npz``, ``deep_demosaick/bayer.pth`` and ``deep_demosaick/bayer_noisy.pth``. What a network is
shown and told is in ``peers_methods.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peers_methods as methods
import peers_nets as nets
import torch

from zoo import __version__
from zoo.baselines import get_baseline
from zoo.cli.evaluate import split_words
from zoo.errors import ZooError
from zoo.evaluation import demosaic
from zoo.evaluation.benchmarks import BENCHMARKS, Benchmark, get_benchmark
from zoo.evaluation.method import Method
from zoo.evaluation.records import QualityRecord, machine
from zoo.evaluation.run import evaluate, image_key
from zoo.models.analysis import count_macs
from zoo.models.registry import nearest

TARGET, PRECISION = "peer", "fp32"
EVIDENCE = Path("evidence/quality")

# Largest noise that a network is shown, as a fraction of white. DemosaicNet learnt up to 0.0784, but at ISO 12,800 it gains
# 0.6 dB (20.8 -> 21.4) if a darker picture with 0.04 is put before it; 0.03 and 0.02 are worse. Deep Demosaick learnt up to
# 10/255.
_MOST_DEMOSAICNET, _MOST_CASCADE = 0.04, 10 / 255

_CLEAN_SIGMA = 1 / 255  # what Deep Demosaick was told of pictures without noise in its training


@dataclass(frozen=True)
class Built:
    """A peer ready to run: the method, its parameters and 1e9 multiply-accumulates per sensor megapixel."""

    method: Method
    params: int
    gmac_per_mp: float


@dataclass(frozen=True)
class Peer:
    """A published network.

    Attributes:
        files: its weights, below ``--peers``.
        source, licence: where they come from, and on what terms.
        note: in what values it is run and how it is told the noise.
        build: (paths of the files, whether file values count as light) -> the method.
    """

    files: tuple[str, ...]
    source: str
    licence: str
    note: str
    build: Callable[[Sequence[Path], bool], Built]


def _parameters(*networks: torch.nn.Module) -> int:
    return sum(p.numel() for net in networks for p in net.parameters())


def _encoded(run: methods.Demosaic, as_light: bool) -> methods.Demosaic:
    """File values, which are sRGB-encoded, go in as they are."""
    return run if as_light else methods.in_srgb(run)


def _demosaicnet(paths: Sequence[Path], as_light: bool) -> Built:
    net = nets.load_demosaicnet(paths[0])
    run = _encoded(partial(methods.run_demosaicnet, net), as_light)
    return Built(methods.demosaic_method(run), _parameters(net), net.gmac_per_mp)


def _demosaicnet_noise(paths: Sequence[Path], as_light: bool) -> Built:
    net = nets.load_demosaicnet(paths[0])
    run = partial(methods.run_demosaicnet, net)
    method = methods.joint_method(run, _encoded(run, as_light), _MOST_DEMOSAICNET)
    return Built(method, _parameters(net), net.gmac_per_mp)


def _cascade(paths: Sequence[Path], as_light: bool) -> Built:
    net = nets.load_deep_demosaick(paths[0])
    run = _encoded(partial(methods.run_cascade, net, sigma=_CLEAN_SIGMA), as_light)
    return Built(methods.demosaic_method(run), _parameters(net), net.gmac_per_mp)


def _cascade_noise(paths: Sequence[Path], as_light: bool) -> Built:
    net = nets.load_deep_demosaick(paths[0])
    clean = _encoded(partial(methods.run_cascade, net, sigma=_CLEAN_SIGMA), as_light)
    method = methods.joint_method(partial(methods.run_cascade, net), clean, _MOST_CASCADE)
    return Built(method, _parameters(net), net.gmac_per_mp)


def _pmrid_menon(paths: Sequence[Path], as_light: bool) -> Built:
    net = nets.load_pmrid(paths[0])
    method = methods.demosaic_method(get_baseline("menon").demosaic, methods.pmrid_denoiser(net))
    return Built(method, _parameters(net), count_macs(net, 4) * 0.25e6 / 1e9)


def _pmrid_demosaicnet(paths: Sequence[Path], as_light: bool) -> Built:
    first, second = nets.load_pmrid(paths[0]), nets.load_demosaicnet(paths[1])
    run = _encoded(partial(methods.run_demosaicnet, second), as_light)
    cost = count_macs(first, 4) * 0.25e6 / 1e9 + second.gmac_per_mp
    return Built(methods.demosaic_method(run, methods.pmrid_denoiser(first)), _parameters(first, second), cost)


_PMRID = ("pmrid/torch_pretrained.ckp", "github.com/MegEngine/PMRID (ECCV 2020)", "Apache-2.0")
_DEMOSAICNET = ("demosaicnet/bayer.pth", "github.com/mgharbi/demosaicnet (SIGGRAPH Asia 2016)", "MIT")
_CASCADE = ("github.com/cig-skoltech/deep_demosaick (ECCV 2018), trained on MSR's linear pictures", "MIT")
_TOLD_KSIGMA = (
    "denoiser on k-Sigma values, told the raw's own S and O (not its OPPO calibration); left out without noise"
)
_IN_SRGB = "on sRGB-encoded balanced values"
_TOLD_SIGMA = "on Anscombe-stabilised balanced values, told their one sigma; without noise on sRGB-encoded values, told"

PEERS = {
    "peer-pmrid+menon": Peer((_PMRID[0],), *_PMRID[1:], f"{_TOLD_KSIGMA}; Menon demosaics", _pmrid_menon),
    "peer-pmrid+demosaicnet": Peer(
        (_PMRID[0], _DEMOSAICNET[0]),
        f"{_PMRID[1]}; {_DEMOSAICNET[1]}",
        f"{_PMRID[2]}; {_DEMOSAICNET[2]}",
        f"{_TOLD_KSIGMA}; DemosaicNet {_IN_SRGB}",
        _pmrid_demosaicnet,
    ),
    "peer-demosaicnet": Peer((_DEMOSAICNET[0],), *_DEMOSAICNET[1:], f"{_IN_SRGB}; knows no noise", _demosaicnet),
    "peer-demosaicnet-noise": Peer(
        ("demosaicnet/caffe_bayer_noise.npz",),
        "github.com/mgharbi/demosaicnet_caffe (SIGGRAPH Asia 2016)",
        "none stated for the weights; code MIT",
        f"{_TOLD_SIGMA} 0; a raw whose noise exceeds {_MOST_DEMOSAICNET} of white is darkened to it",
        _demosaicnet_noise,
    ),
    "peer-deep-demosaick": Peer(
        ("deep_demosaick/bayer.pth",), *_CASCADE, f"{_IN_SRGB}, told 1/255 as in training; knows no noise", _cascade
    ),
    "peer-deep-demosaick-noisy": Peer(
        ("deep_demosaick/bayer_noisy.pth",),
        *_CASCADE,
        f"{_TOLD_SIGMA} 1/255; a raw whose noise exceeds 10/255 of white is darkened to it",
        _cascade_noise,
    ),
}


def open_peer(name: str, folder: Path, benchmark: str) -> tuple[Method, dict[str, Any]]:
    """A peer's method for a benchmark, with the fields of :class:`QualityRecord` that say what was run.

    Args:
        name: one of :data:`PEERS`.
        folder: of the peers' weights.
        benchmark: name of the benchmark.

    Raises:
        ZooError: unknown name, or weights that are missing or of another network.
    """
    if name not in PEERS:
        raise ZooError(f"unknown peer '{name}'{nearest(name, PEERS)}; choose from {', '.join(PEERS)}")
    peer = PEERS[name]
    paths = [folder / file for file in peer.files]
    digests = [nets.sha256(path) for path in paths]
    as_light = benchmark == demosaic.BENCHMARK
    built = peer.build(paths, as_light)
    cost = {"params": built.params, "gmac_per_mp": round(built.gmac_per_mp, 3)}
    note = peer.note + ("; here file values count as light and go in as they are" if as_light else "")
    # Of several files, the digest of their digests.
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return built.method, {
        "weights_sha256": digest,
        "settings": {**cost, "source": peer.source, "note": note, "files": dict(zip(peer.files, digests, strict=True))},
        "cost": cost,
        "licence": peer.licence,
    }


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code: 0, or 2 after one line of what is wrong with the input."""
    parser = argparse.ArgumentParser(prog="tools/peers.py", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help=", ".join(PEERS))
    add("--data", type=Path, required=True, metavar="DIR", help="folder of clean pictures; of pairs for pairs")
    add("--peers", type=Path, default=Path("../shared/data/peers"), metavar="DIR", help="folder of the peers' weights")
    add("--benchmark", default="bayer", metavar="B", help=f"{', '.join(BENCHMARKS)} (default: bayer)")
    add("--sets", default="all", metavar="S,...", help="kodak, mcmaster, ... (default: all)")
    add("--noise", metavar="L,...", help="noise levels (default: all of the benchmark)")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    add("--limit", type=int, metavar="N", help="at most N pictures of each set")
    add("--output-dir", type=Path, default=EVIDENCE, metavar="DIR", help=f"default: {EVIDENCE}")
    add("--fresh", action="store_true", help="measure again what is already there")
    args = parser.parse_args(arguments)
    try:
        _measure(args, shlex.join(["python", "tools/peers.py", *arguments]))
    except ZooError as error:
        print(f"peers: {error}", file=sys.stderr)
        return 2
    return 0


def _measure(args: argparse.Namespace, command: str) -> None:
    for option, value in (("--threads", args.threads), ("--limit", args.limit)):
        if value is not None and value < 1:
            raise ZooError(f"{option} is 1 or more, not {value}")
    benchmark = get_benchmark(args.benchmark)
    levels = split_words(args.noise) if args.noise else list(benchmark.levels)
    for level in levels:
        if level not in benchmark.levels:
            raise ZooError(f"{benchmark.name} has no noise level '{level}'; choose from {', '.join(benchmark.levels)}")
    torch.set_num_threads(args.threads)
    pictures = benchmark.find(args.data, split_words(args.sets), args.limit)
    keys = {image_key(p) for p in pictures}
    # All are opened before the first, which may take hours, is measured.
    opened = {name: open_peer(name, args.peers, benchmark.name) for name in dict.fromkeys(args.names)}
    for name, (method, facts) in opened.items():
        for level in levels:
            record = _record(name, facts, benchmark, level, command, args.threads)
            record = evaluate(method, record, pictures, args.output_dir, fresh=args.fresh)
            _report(record, keys)


def _record(
    name: str, facts: dict[str, Any], benchmark: Benchmark, level: str, command: str, threads: int
) -> QualityRecord:
    shot, read = benchmark.levels[level]
    versions = {"raw-zoo": __version__, "python": platform.python_version(), "numpy": np.__version__}
    if name.endswith("+menon"):
        versions |= get_baseline("menon").versions()
    return QualityRecord(
        name=name,
        target=TARGET,
        precision=PRECISION,
        level=level,
        shot=shot,
        read=read,
        benchmark=benchmark.name,
        command=command,
        versions=versions | {"torch": torch.__version__},
        machine=machine(threads),
        **facts,
    )


def _report(record: QualityRecord, keys: set[str]) -> None:
    """One line per set: means of the benchmark's metrics."""
    for name, group in record.summary(keys).items():
        means = "  ".join(f"{metric} {value:.4g}" for metric, value in group["mean"].items())
        print(f"{record.name} {record.level} {name} ({group['images']}): {means}", flush=True)
    print(f"{record.name} {record.level}: {record.ms_per_mp(keys)} ms/MP", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
