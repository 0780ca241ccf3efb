"""What a phone says of itself: model, SoC, battery, thermal state, clocks. One question, one answer, parsed here.

Everything is read through the shell's own rights: what a phone hides from it (many hide sysfs' thermal zones) is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from export.phone_adb import Adb
from zoo.errors import ZooError

_MARK = "@@"
_QUESTIONS = {
    "props": "getprop",
    "battery": "dumpsys battery",
    "thermal": "dumpsys thermalservice",
    "zones": 'for z in /sys/class/thermal/thermal_zone*; do echo "$(cat $z/type) $(cat $z/temp)"; done',
    "clocks": "for c in /sys/devices/system/cpu/cpu[0-9]*; do f=$c/cpufreq; "
    'echo "${c##*/cpu} $(cat $f/scaling_cur_freq) $(cat $f/scaling_max_freq) $(cat $f/cpuinfo_max_freq) '
    '$(cat $f/scaling_governor)"; done',
}
# Android's PowerManager.THERMAL_STATUS_*.
THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
LEAST_BATTERY = 50  # percent: below, many phones hold their clocks down


@dataclass(frozen=True)
class PhoneState:
    """A phone at one moment.

    Attributes:
        device: ``manufacturer``, ``model``, ``soc``, ``android``, ``sdk``, ``build``; no serial number.
        abis: instruction sets, preferred first, such as ``arm64-v8a``.
        battery: ``level`` in percent, ``temperature_c``, ``powered``; what is known of it.
        thermal: ``status`` (word, see :data:`THERMAL_STATUS`) and ``temperatures_c`` by sensor.
        clocks: one row per core: ``cpu``, ``khz``, ``scaling_max_khz``, ``max_khz``, ``governor``.
    """

    device: dict[str, str]
    abis: tuple[str, ...]
    battery: dict[str, Any]
    thermal: dict[str, Any]
    clocks: list[dict[str, Any]]

    def moment(self) -> dict[str, Any]:
        """What changes with time, for a record."""
        return {"battery": self.battery, "thermal": self.thermal, "clocks": self.clocks}

    def doubts(self) -> list[str]:
        """Reasons not to trust a latency measured now."""
        found = []
        level, status = self.battery.get("level"), self.thermal.get("status")
        if level is not None and level < LEAST_BATTERY:
            found.append(f"battery at {level} % (below {LEAST_BATTERY} % many phones slow down)")
        if status not in (None, "none"):
            found.append(f"thermal status {status}")
        held = [r for r in self.clocks if r["scaling_max_khz"] < r["max_khz"]]
        if held:
            found.append(f"{len(held)} cores are held below their full clock")
        return found


def read_state(phone: Adb) -> PhoneState:
    """Ask everything in one shell command.

    Raises:
        ZooError: the phone went away.
    """
    script = "; ".join(f"echo {_MARK}{name}; {{ {question}; }} 2>/dev/null" for name, question in _QUESTIONS.items())
    return parse_state(phone.shell(script, check=False).stdout.decode(errors="replace"))


def parse_state(text: str) -> PhoneState:
    """What :func:`read_state` got, taken apart.

    Raises:
        ZooError: no properties in it: whatever answered is no Android.
    """
    sections: dict[str, str] = {}
    for part in text.split(_MARK)[1:]:
        name, _, body = part.partition("\n")
        sections[name.strip()] = body
    props = dict(re.findall(r"^\[([^]]+)]: \[([^]]*)]", sections.get("props", ""), re.MULTILINE))
    if "ro.build.version.release" not in props:
        raise ZooError("what adb reached is no Android phone: it has no property ro.build.version.release")
    soc = " ".join(filter(None, (props.get("ro.soc.manufacturer"), props.get("ro.soc.model"))))
    device = {
        "manufacturer": props.get("ro.product.manufacturer", ""),
        "model": props.get("ro.product.model", ""),
        "soc": soc or props.get("ro.board.platform", "") or props.get("ro.hardware", ""),
        "android": props["ro.build.version.release"],
        "sdk": props.get("ro.build.version.sdk", ""),
        "build": props.get("ro.build.id", ""),
    }
    abis = props.get("ro.product.cpu.abilist") or props.get("ro.product.cpu.abi", "")
    thermal = _thermal(sections.get("thermal", ""))
    for name, value in re.findall(r"^(\S+) (-?\d+)$", sections.get("zones", ""), re.MULTILINE):
        # Milli-degrees; a few kernels report whole degrees.
        degrees = int(value) / 1000 if abs(int(value)) >= 1000 else float(value)
        thermal["temperatures_c"].setdefault(name, round(degrees, 1))
    clocks = [
        {
            "cpu": int(cpu),
            "khz": int(now),
            "scaling_max_khz": int(held),
            "max_khz": int(most),
            "governor": governor,
        }
        for cpu, now, held, most, governor in re.findall(
            r"^(\d+) (\d+) (\d+) (\d+) (\S+)$", sections.get("clocks", ""), re.MULTILINE
        )
    ]
    abilist = tuple(filter(None, abis.split(",")))
    return PhoneState(device, abilist, _battery(sections.get("battery", "")), thermal, clocks)


def _battery(text: str) -> dict[str, Any]:
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in text.splitlines())}
    known: dict[str, Any] = {}
    if fields.get("level", "").isdigit():
        known["level"] = int(fields["level"])
    if fields.get("temperature", "").lstrip("-").isdigit():
        known["temperature_c"] = int(fields["temperature"]) / 10  # tenths of a degree
    powered = [v for k, v in fields.items() if k.endswith("powered")]
    if powered:
        known["powered"] = "true" in powered
    return known


def _thermal(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {"temperatures_c": {}}
    status = re.search(r"Thermal Status: (\d+)", text)
    if status and int(status[1]) < len(THERMAL_STATUS):
        found["status"] = THERMAL_STATUS[int(status[1])]
    # The HAL's own block comes last and is current; the cached one before it may be old.
    for value, name in re.findall(r"mValue=(-?[\d.]+), mType=-?\d+, mName=([^,}]+)", text):
        found["temperatures_c"][name.strip()] = round(float(value), 1)
    return found
