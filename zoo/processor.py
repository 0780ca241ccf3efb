"""What the processor is called in records of time."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "asimddp"}  # of 8-bit integers, as /proc/cpuinfo lists them


def has_int8_dot_products() -> bool | None:
    """Whether the CPU multiplies int8 faster than it does floats; None where the system does not say."""
    try:
        words = set(_CPUINFO.read_text().split())
    except OSError:
        return None
    return bool(words & _DOT_PRODUCTS)


def processor_name() -> str:
    """Name of the CPU, on x86 with family and model.

    Virtual machines cut names short: a Zen 3 and a Zen 5, one without the int8 dot products that the other has, both say
    "AMD EPYC", and times of the two must not share a table.
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
    if "cpu family" in facts and "model" in facts:
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    return name
