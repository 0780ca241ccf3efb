"""``zoo show``: all that is known of one model, of an exported file, or of one .rzc file."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from zoo import weights
from zoo.cli.runtimes import ARTEFACTS
from zoo.models.contracts import documentation
from zoo.models.registry import get_spec, halves


def add_parser(subparsers: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "show",
        help=help,
        description="Show a model's specification, contract, weights and card; what an exported file says of itself, with which "
        "an app can run it (docs/app.md); or what the header of an .rzc file says.",
    )
    parser.add_argument("name", metavar="NAME", help="one of `zoo list`, a file of `zoo export`, or an .rzc file")
    return parser


def run(args: argparse.Namespace) -> None:
    if args.name.lower().endswith(".rzc"):
        _show_file(args.name, args.json)
        return
    if Path(args.name).suffix in ARTEFACTS:
        _show_artefact(Path(args.name), args.json)
        return
    spec = get_spec(args.name)
    files = [weights.path(args.name), weights.tables_path(args.name)]
    files += [weights.path(args.name, quantized=True, half=half) for half in halves(args.name)]
    card = weights.card(args.name)
    facts: dict[str, Any] = {
        "spec": dataclasses.asdict(spec),
        "contract": documentation(spec.contract),
        "weights": [
            {"file": str(f), "bytes": f.stat().st_size, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()}
            for f in files
            if weights.listed(f, card)
        ],
        "card": card,
    }
    if args.json:
        print(json.dumps(facts, indent=1, default=str))
        return
    import yaml

    if not facts["weights"]:
        facts["weights"] = "none ship with this version"
    contract = facts.pop("contract")
    print(yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=110))
    print(contract)


def _show_artefact(path: Path, as_json: bool) -> None:
    """The metadata of a file of `zoo export`: a text to each key, in the order in which it has them."""
    import export

    metadata = export.target_module(ARTEFACTS[path.suffix]).read_metadata(path)
    print(json.dumps(metadata, indent=1) if as_json else "\n".join(f"{k}: {v}" for k, v in metadata.items()))


def _show_file(path: str, as_json: bool) -> None:
    """What a file says of itself; no network is needed, and tiles are checked but not decoded."""
    from zoo.codec import parse

    stream = parse(path, salvage=True)
    header, size = stream.header, Path(path).stat().st_size
    facts = {k: v for k, v in vars(header).items() if k != "tiles"}  # which was worked out, and is not in the file
    facts |= {
        "xyz_to_cam": None if header.xyz_to_cam is None else header.xyz_to_cam.tolist(),
        "noise": dataclasses.asdict(header.noise),
        "weights_sha256": header.weights_sha256.hex(),
        "tables_sha256": header.tables_sha256.hex(),
        "tiles": {"rows": stream.tiles.rows, "columns": stream.tiles.columns, "damaged": int((~stream.whole()).sum())},
        "bytes": size,
        "bits_per_pixel": round(8 * size / (header.height * header.width), 5),
    }
    plain = json.loads(json.dumps(facts))
    if as_json:
        print(json.dumps(plain, indent=1))
        return
    import yaml

    print(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None))
