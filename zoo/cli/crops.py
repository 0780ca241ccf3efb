"""Makes the crops of real raws that the report shows under sliders, before and after the default model.

Only raws whose licence lets crops be passed on are taken, as the pictures ship in ``evidence/crops/``.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.record import write_record

SIDE = 288  # pixels; shown about twice as large on a desktop, so that single pixels can be seen
LARGEST = 400_000  # bytes of all pictures: they are kept in the repository and embedded in the page
_QUALITY = 82  # of WebP: at 90 noise alone takes half as much again, and cannot be told apart at twice the size


@dataclass(frozen=True)
class Known:
    """A raw that is shown: the file's name without suffix, the crop's centre (y, x) in sensor pixels, its licence."""

    stem: str
    centre: tuple[int, int]
    licence: str


KNOWN = (
    Known("gopr9231_crop", (600, 600), "Apache-2.0 or MIT"),
    Known("infisp_outdoor2_8bit", (600, 640), "Apache-2.0"),
    Known("n900_bayer_small", (150, 128), "MIT"),
    Known("canon_d30", (969, 1028), "MIT"),
    Known("gopr0024_crop", (230, 560), "Apache-2.0 or MIT"),
    Known("infisp_outdoor3_8bit", (576, 640), "Apache-2.0"),
)


def make_crops(folder: Path, data: Path, tick: Callable[[str], object] = str) -> Path:
    """Develop the known crops with Menon's demosaicing and with the default model in int8; write them and their record.

    Args:
        folder: where to.
        data: a folder with the raws somewhere in it; those that it lacks are left out.
        tick: called with the name of each raw.

    Returns:
        path of the record.

    Raises:
        ZooError: none of the raws, too large pictures, no runtime, or a file that cannot be written.
    """
    from zoo.cli.methods import open_method
    from zoo.evaluation.blind import Crop, develop_crop, read_bayer, title
    from zoo.models.registry import DEFAULT_MODEL

    if not data.is_dir():
        raise ZooError(f"{data}: no such folder; give a folder of raws with --data")
    found = [(known, path) for known in KNOWN for path in sorted(data.rglob(f"{known.stem}.*"))[:1]]
    if not found:
        raise ZooError(
            f"{data}: holds none of {', '.join(k.stem for k in KNOWN)}; leave --data out to use the shipped crops"
        )
    network, plain = open_method(DEFAULT_MODEL, target="integer", threads=1), open_method("menon")
    crops, pictures = [], {}
    for known, path in found:
        tick(known.stem)
        raw, crop = read_bayer(path), Crop(path, known.centre)
        entry: dict[str, Any] = {
            "raw": path.name,
            "raw_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "title": title(raw),
        }
        entry |= {"centre": known.centre, "side": SIDE, "licence": known.licence}
        for side, method in (("before", plain), ("after", network)):
            name = f"{known.stem}-{side}.webp"
            pictures[name], entry[side] = _webp(develop_crop(method.method, raw, crop, SIDE)), name
        crops.append(entry)
    size = sum(map(len, pictures.values()))
    if size > LARGEST:
        raise ZooError(f"{len(crops)} crops take {size} bytes, more than {LARGEST}; make SIDE smaller")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in pictures.items():
            temporary = folder / f".{name}"
            temporary.write_bytes(content)
            temporary.replace(folder / name)
    except OSError as error:
        raise ZooError(f"{folder}: cannot be written ({error.strerror}); give another folder") from error
    about: dict[str, Any] = {"model": network.name, "target": network.target, "precision": network.precision}
    about |= {"weights_sha256": network.facts["weights_sha256"], "versions": network.facts["versions"]}
    about |= {"before": "Menon 2007", "after": f"{network.name} {network.precision}", "crops": crops}
    write_record(folder / "crops.json", "crops", about)
    return folder / "crops.json"


def _webp(picture: object) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=_QUALITY, method=6)  # type: ignore[arg-type]
    return buffer.getvalue()
