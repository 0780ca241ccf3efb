"""``zoo benchmark --device adb[:SERIAL]``: the options and the table of a benchmark on a phone."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.record import write_record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that mean something with ``--device`` only."""
    group = parser.add_argument_group("on a phone")
    group.add_argument("--device", metavar="adb[:SERIAL]", help="measure on an Android phone instead of this machine")
    group.add_argument("--mode", default="warm", help="warm (default), cold or sustained")
    group.add_argument("--seconds", type=float, default=600.0, help="length of sustained mode (default: 600)")
    group.add_argument("--cpus", default="", metavar="LIST", help="cores to stay on, for example 4-7")
    group.add_argument("--runner", type=Path, metavar="PATH", help="program or folder to run models with on the phone")


def run(args: argparse.Namespace, artifacts: Iterable[Path], threads: list[int]) -> None:
    """Measure each artefact with each thread count on the phone; print, and record with ``--record``."""
    from rich.console import Console
    from rich.table import Table

    from export.phone import benchmark_phone

    kind, _, serial = args.device.partition(":")
    if kind != "adb":
        raise ZooError(f"unknown device '{args.device}'; give adb, or adb:SERIAL where there are several phones")
    console = Console(stderr=True)
    records = []
    for path in artifacts:
        for count in threads:
            with console.status(f"{path.name}, {count} thread(s), {args.mode}, on the phone"):
                record = benchmark_phone(
                    path,
                    serial=serial,
                    mode=args.mode,
                    threads=count,
                    cpus=args.cpus,
                    warmup_runs=args.warmup_runs,
                    num_runs=args.num_runs,
                    seconds=args.seconds,
                    runner=args.runner,
                )
            if args.record:
                write_record(args.record / _name(record), "phone", record | _command(serial))
            records.append(record)
    if args.json:
        print(json.dumps(records))
        return
    table = Table(
        "artefact", "phone", "threads", "mode", "median ms", "p10-p90", "ms/MP", "load ms", "slower", "output"
    )
    for r in records:
        slower = r.get("sustained", {}).get("throttling_ratio")
        table.add_row(
            r["artifact"],
            f"{r['device']['model']} ({r['device']['soc']})",
            str(r["threads"]),
            r["mode"],
            f"{r['ms']['median']:.2f}",
            f"{r['ms']['p10']:.2f}-{r['ms']['p90']:.2f}",
            f"{r['ms_per_megapixel']:.1f}",
            f"{r['load_ms']:.1f}",
            "-" if slower is None else f"{slower:.2f}x",
            "equal" if r["output"]["equal"] else f"differs by <= {r['output']['max_abs']:.2g}",
        )
    Console(width=max(140, Console().width)).print(table)
    for doubt in dict.fromkeys(d for r in records for d in r["doubts"]):
        console.print(f"mind: {doubt}")


def _command(serial: str) -> dict[str, str]:
    """The command as typed, without the serial number, which identifies a person's phone."""
    import shlex

    words = [word.replace(f"adb:{serial}", "adb") if serial else word for word in sys.argv[1:]]
    return {"command": f"zoo {shlex.join(words)}"}


def _name(record: dict[str, Any]) -> str:
    """File name of a record: one per phone, artefact, threads and mode."""
    phone = "-".join(f"{record['device']['manufacturer']} {record['device']['model']}".lower().split())
    phone = "".join(c if c.isalnum() or c in "-." else "_" for c in phone)
    return f"{phone}-{Path(record['artifact']).stem}-t{record['threads']}-{record['mode']}.json"
