"""``zoo benchmark --profile``: per-operator time and its table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from zoo.record import write_record


def run(args: argparse.Namespace, artifacts: Iterable[Path], threads: list[int]) -> None:
    """Profile each artefact with each thread count; print the slowest operators, and record all with ``--record``."""
    from rich.console import Console
    from rich.table import Table

    from export.profile import profile

    console = Console(stderr=True)
    records = []
    for path in artifacts:
        for count in threads:
            with console.status(f"{path.name}, {count} thread(s), by operator"):
                record = profile(path, threads=count, warmup_runs=args.warmup_runs, num_runs=args.num_runs)
            if args.record:
                write_record(args.record / f"{path.stem}-t{count}.json", "profile", record)
            records.append(record)
    if args.json:
        print(json.dumps(records))
        return
    table = Table("artefact", "threads", "slowest operators", "layer", "output", "us", "share", "GMAC/s")
    for record in records:
        lead = [record["artifact"], str(record["threads"])]
        for row in record["slowest"]:
            shape = "x".join(str(n) for n in row["shape"])
            speed = f"{row['gmac_per_second']:.0f}" if "gmac_per_second" in row else "-"
            cells = row["operator"], row["layer"], shape, f"{row['us']['min']:.0f}", f"{row['share']:.0%}", speed
            table.add_row(*lead, *cells)
            lead = ["", ""]
        count = len(record["operators"])
        table.add_row("", "", f"all {count}", "", "", f"{1000 * record['sum_ms']:.0f}", "100%", "-", end_section=True)
    Console(width=max(140, Console().width)).print(table)
