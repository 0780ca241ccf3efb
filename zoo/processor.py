"""What the processor is called in records of time."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def processor_name() -> str:
    """Name of the CPU, on x86 with its family.

    Virtual machines cut names short: a Zen 3 and a Zen 5, one without the int8 dot products that the other has, both say
    "AMD EPYC", and times of the two must not share a table. Family 25 is Zen 3 and Zen 4; only the latter has AVX-512.
    """
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in facts:
        wide = facts["cpu family"] == "25" and "avx512f" in facts.get("flags", "").split()
        name += f" (family {facts['cpu family']}{' with AVX-512' if wide else ''})"
    return name
