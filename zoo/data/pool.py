"""Pools of clean pictures to synthesise training raws from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.errors import ZooError

PICTURES = (".webp", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
# Largest linear value a pool keeps; HDR panoramas reach thousands, a sensor clips at one times exposure.
LINEAR_RANGE = 16.0
_HASH_SIDE = 16
_HASH_DISTANCE = 12  # of 256 bits; measured: halved and recompressed copies differ by <= 8, other photos by >= 79


class ImagePool:
    """Clean linear-light pictures, kept as uint16 codes ``round(65535 * sqrt(linear / 16))``.

    The square root spends the 16 bits where an 8-bit sRGB source has them: its lowest step is 285 codes wide.

    Attributes:
        images: codes, uint16 tensors ``[H, W, 3]``.
        digest: sha256 over the names and contents of the files, for the checkpoint's card.
    """

    def __init__(self, images: list[Tensor], digest: str) -> None:
        self.images = images
        self.digest = digest
        self.areas = torch.tensor([float(i.shape[0] * i.shape[1]) for i in images])

    def to(self, device: torch.device | str) -> ImagePool:
        """The same pool with its pictures on ``device``."""
        return ImagePool([i.to(device) for i in self.images], self.digest)

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def from_folder(
        cls, folder: Path, *, min_side: int, progress: Callable[[int, int], None] | None = None
    ) -> ImagePool:
        """Read every picture and HDR band below ``folder``.

        Args:
            folder: sRGB pictures (8 or 16 bit; of 16-bit PNGs in colour Pillow gives 8), and npz files with an array ``rgbe``
                ``[H, W, 4]`` (Radiance RGBE bytes).
            min_side: smaller pictures are left out, in pixels.
            progress: called with (done, total).

        Raises:
            ZooError: no usable picture, one that cannot be read, or a held-out evaluation picture among them.
        """
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (*PICTURES, ".npz") and not p.is_dir())
        images: list[Tensor] = []
        digest = hashlib.sha256()
        for index, path in enumerate(files):
            if progress is not None:
                progress(index, len(files))
            linear = _read_linear(path)
            if linear is None or min(linear.shape[:2]) < min_side:
                continue
            data = path.read_bytes()
            _refuse_held_out(path, data, linear)
            digest.update(path.name.encode() + hashlib.sha256(data).digest())
            code = np.sqrt(np.clip(linear, 0, LINEAR_RANGE) / LINEAR_RANGE) * 65535 + 0.5
            images.append(torch.from_numpy(code.astype(np.uint16)))
        if progress is not None:
            progress(len(files), len(files))
        if not images:
            raise ZooError(
                f"{folder}: no picture of at least {min_side} px to train on; point --data at a folder of them"
            )
        return cls(images, digest.hexdigest())


def decode_linear(code: Tensor) -> Tensor:
    """uint16 codes of a pool -> float32 linear light in [0, 16]."""
    return (code.to(torch.float32) / 65535).square() * LINEAR_RANGE


def read_srgb(path: Path) -> np.ndarray:
    """A picture file as float32 ``[H, W, 3]``, sRGB-encoded, in [0, 1].

    Raises:
        ZooError: not a readable picture, or a TIFF that is not RGB.
    """
    from PIL import Image

    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            data = tifffile.imread(path)
            if data.ndim != 3 or data.shape[2] not in (3, 4):  # grey, a palette's indices, planes, pages
                raise ValueError(f"a TIFF of shape {data.shape}, not RGB")
            return data[..., :3].astype(np.float32) / np.iinfo(data.dtype).max
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16-bit grey, which Pillow clips to 8 bit rather than scale it
                grey = np.asarray(image).astype(np.float32) / 65535
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"), np.float32) / 255
    except Exception as error:  # Pillow and tifffile raise what they like on damage
        raise ZooError(f"{path}: cannot be read as a picture ({error}); remove it or convert it to PNG") from error


def _read_linear(path: Path) -> np.ndarray | None:
    from zoo.raw import srgb_decode

    if path.suffix.lower() != ".npz":
        return srgb_decode(read_srgb(path))
    try:
        with np.load(path) as archive:
            if "rgbe" not in archive:
                return None
            rgbe = archive["rgbe"]
            if rgbe.ndim != 3 or rgbe.shape[2] != 4 or rgbe.dtype != np.uint8:
                raise ValueError(f"rgbe is {rgbe.dtype} {rgbe.shape}, not uint8 (H, W, 4)")
    except Exception as error:  # zipfile and NumPy raise what they like on damage
        raise ZooError(f"{path}: cannot be read as an HDR band ({error}); remove it or make it again") from error
    linear = rgbe[..., :3].astype(np.float32) * np.exp2(rgbe[..., 3:].astype(np.float32) - 136)
    # Panoramas come in arbitrary units: 0.18 of a photo's white for the median is an ordinary exposure.
    return (linear * (0.18 / max(float(np.median(linear)), 1e-6))).astype(np.float32)


def difference_hash(linear: np.ndarray) -> np.ndarray:
    """256-bit perceptual hash: signs of horizontal brightness steps on a 16x17 grid. bool ``[256]``."""
    grey = torch.from_numpy(np.ascontiguousarray(linear.mean(-1), np.float32))[None, None].clamp(0, 1).sqrt()
    small = torch.nn.functional.adaptive_avg_pool2d(grey, (_HASH_SIDE, _HASH_SIDE + 1))[0, 0]
    return (small[:, 1:] > small[:, :-1]).flatten().numpy()


@cache
def _held_out() -> tuple[frozenset[str], np.ndarray]:
    text = (Path(__file__).with_name("held_out.txt")).read_text().split("\n")
    rows = [line.split() for line in text if line and not line.startswith("#")]
    hashes = [np.unpackbits(np.frombuffer(bytes.fromhex(row[1]), np.uint8)) for row in rows if len(row) > 1]
    return frozenset(row[0] for row in rows), np.array(hashes, bool).reshape(-1, _HASH_SIDE**2)


def _refuse_held_out(path: Path, data: bytes, linear: np.ndarray) -> None:
    digests, hashes = _held_out()
    if hashlib.sha256(data).hexdigest() in digests:
        raise ZooError(f"{path}: is one of the held-out evaluation files; take it out of the training folder")
    distance = (hashes != difference_hash(linear)).sum(1).min(initial=_HASH_SIDE**2)
    if distance <= _HASH_DISTANCE:
        raise ZooError(
            f"{path}: looks like a copy of a held-out evaluation picture; take it out of the training folder"
        )
