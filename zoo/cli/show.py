"""``zoo show``: all that is known of one model."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from typing import Any

from zoo import weights
from zoo.models.contracts import documentation
from zoo.models.registry import get_spec


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "show", help="show one model", description="Show a model's specification, contract, weights and card."
    )
    parser.add_argument("name", metavar="NAME", help="one of `zoo list`")
    return parser


def run(args: argparse.Namespace) -> None:
    spec = get_spec(args.name)
    files = [weights.path(args.name, quantized=quantised) for quantised in (False, True)]
    facts: dict[str, Any] = {
        "spec": dataclasses.asdict(spec),
        "contract": documentation(spec.contract),
        "weights": [
            {"file": str(f), "bytes": f.stat().st_size, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()}
            for f in files
            if f.exists()
        ],
        "card": weights.card(args.name),
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
