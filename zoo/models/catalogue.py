"""The specifications of all models as a file, so that listing them needs neither torch nor building any network.

``python -m zoo.models.catalogue`` writes it anew; a test says when that is due.
"""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path

from zoo.files import replacing
from zoo.models.registry import CodecSpec, ModelSpec

CATALOGUE = Path(__file__).with_name("catalogue.json")


@cache
def load_catalogue() -> dict[str, ModelSpec]:
    """Specification by name."""
    entries = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    for entry in entries:
        if "codec" in entry:
            entry["codec"] = CodecSpec(**entry["codec"])
    return {entry["name"]: ModelSpec(**entry) for entry in entries}


def derive_catalogue() -> str:
    """What the file should hold: the specification of every model, derived from its layers."""
    from zoo.models.registry import derive_spec, registered

    specs = [dataclasses.asdict(derive_spec(name)) for name in registered()]
    specs = [{k: v for k, v in spec.items() if v is not None} for spec in specs]  # denoisers have no "codec"
    return json.dumps(specs, indent=1) + "\n"


def write_catalogue() -> None:
    """Write the file from the registered models."""
    text = derive_catalogue()
    with replacing(CATALOGUE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    load_catalogue.cache_clear()


if __name__ == "__main__":
    write_catalogue()
