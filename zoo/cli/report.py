"""``zoo report``: all that was measured, on one page; tables, cards and plots of the repository."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction, help: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "report",
        help=help,
        description="Renders evidence: a self-contained report.html and report.md with --output-dir; with --update the README's "
        "tables, model cards and plots of this repository, which --check holds against the evidence.",
    )
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="write report.html and report.md here")
    parser.add_argument("--evidence", type=Path, default=Path("evidence"), metavar="DIR", help="default: evidence")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of raws: make the crops anew instead of showing those that ship",
    )
    parser.add_argument(
        "--update",
        action="store_true",
        help="bring README.md, docs/results.md, docs/models/ and docs/frontier.svg up to date; with --data the crops too",
    )
    parser.add_argument(
        "--check", action="store_true", help="fail where evidence breaks its schema or a rendered file is stale"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    import sys
    import tempfile

    from zoo.cli.crops import make_crops
    from zoo.errors import ZooError
    from zoo.report.build import check, update, write_report

    if not (args.output_dir or args.update or args.check):
        raise ZooError("nothing to do; give --output-dir DIR, --update or --check")
    if args.evidence.is_dir() and not any(args.evidence.rglob("*.json")):
        raise ZooError(f"{args.evidence}: holds no records; give the folder that they lie in with --evidence")
    said: dict[str, object] = {}

    def tick(name: str) -> None:
        print(f"developing {name}", file=sys.stderr)

    if args.update:
        if args.data:
            make_crops(args.evidence / "crops", args.data, tick)
        said["updated"] = [str(p) for p in update(Path(), args.evidence)]
    if args.check:
        said["checked"] = check(Path(), args.evidence)
    if args.output_dir:
        with tempfile.TemporaryDirectory() as folder:
            fresh = args.data is not None and not args.update
            if fresh:
                make_crops(Path(folder) / "crops", args.data, tick)
            written = write_report(args.output_dir, args.evidence, Path(folder) / "crops" if fresh else None)
        said["written"] = [str(p) for p in written]
    if args.json:
        print(json.dumps(said))
        return
    for path in [*said.get("updated", []), *said.get("written", [])]:  # type: ignore[misc]
        print(path)
    if args.check:
        print(f"{said['checked']} records hold to their schemas, and nothing that is rendered from them is stale")
