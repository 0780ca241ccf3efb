"""A compressor ready to use: raw photo -> bytes -> picture, with any runtime for either half.

Both halves work on windows of one size: what a tile owns and as much around it as their receptive fields reach, mirrored
pixels or repeated latents beyond the photo's edge. So tiles are exact, and a runtime with fixed shapes can take each half.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal, overload

import numpy as np
import numpy.typing as npt
import torch

from zoo import weights
from zoo.codec.container import Stream, parse
from zoo.codec.extras import pack_extras, read_extras
from zoo.codec.header import Header, describe
from zoo.codec.rounding import quantise
from zoo.codec.stream import Progress, compress, pieces
from zoo.codec.tables import EntropyTables, load_tables
from zoo.codec.thumbnail import make_thumbnail
from zoo.codec.tiles import Box
from zoo.errors import ZooError
from zoo.inference.black import raise_to_black
from zoo.inference.output import baseline_of, develop
from zoo.inference.restore import bayer_tile
from zoo.inference.runner import TileRunner, TorchRunner, check_threads, torch_beside
from zoo.inference.tiling import Band
from zoo.models.compressor import merge_twins, split_fine
from zoo.models.contracts import get_contract
from zoo.models.contracts.bayer_codec import BayerCodecContract
from zoo.models.registry import DEFAULT_COMPRESSOR, ModelSpec, check_compressor, create_model, get_spec
from zoo.raw import RawImage, apply_orientation

DEFAULT_QUALITY = 48  # at 32 blocks show in dark scenes
TILE = 512  # sensor pixels per side of a tile where the runtime leaves the choice
MAX_TILE = 2048  # of a file that is decoded: what a window may allocate
Source = bytes | str | os.PathLike[str]
RGB = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class Codec:
    """A compressor of raws. Made by :func:`open_codec`.

    Args:
        spec: of a compressor.
        tables: its entropy tables.
        gains: float64 ``[qualities, C]``, what latents are multiplied by.
        encoder, decoder: its halves; a fixed ``tile`` counts packed pixels of the encoder, latent positions of the decoder.
        weights_sha256: of its float weights, 64 hexadecimal digits; names the decoder in every file.

    Attributes:
        name: registered model.
        qualities: 0 to 63, worst first.
        weights_sha256: as given.
    """

    def __init__(
        self,
        spec: ModelSpec,
        tables: EntropyTables,
        gains: npt.NDArray[np.float64],
        encoder: TileRunner,
        decoder: TileRunner,
        weights_sha256: str,
    ) -> None:
        codec = check_compressor(spec.name)
        contract = get_contract(spec.contract)
        assert isinstance(contract, BayerCodecContract)
        if tables.channels != codec.latents:
            raise ZooError(f"{spec.name}: its entropy tables are of another model; install the package again")
        self.name, self.weights_sha256 = spec.name, weights_sha256
        self.tables, self.gains = tables, gains
        self.qualities: Sequence[int] = range(tables.qualities)
        self.stride, self.halo = codec.stride, codec.decoder_halo
        self._twins, self._fine = codec.twins, codec.fine
        self._contract, self._encoder, self._decoder = contract, encoder, decoder
        self._step = codec.stride // 2  # packed pixels per position
        self._margin = -(-codec.encoder_halo // self._step)  # positions
        if encoder.tile is not None and (encoder.tile % self._step or encoder.tile // self._step <= 2 * self._margin):
            least = self._step * (2 * self._margin + 1)
            raise ZooError(
                f"{spec.name}: an encoder for tiles of {encoder.tile} leaves nothing; export it for {least} or more"
            )

    def compress(
        self,
        raw: RawImage,
        quality: int = DEFAULT_QUALITY,
        *,
        denoised: RawImage | None = None,
        thumbnail: bool = False,
        progress: Progress | None = None,
    ) -> bytes:
        """The bytes of an ``.rzc`` file.

        Args:
            raw: Bayer, any phase and size from 2x2.
            quality: one of :attr:`qualities`.
            denoised: what the encoder is shown instead, from :func:`zoo.inference.denoise.denoised_mosaic`: the file is of
                ``raw`` all the same, and decodes as any other.
            thumbnail: put a small picture into it, up to 16 kB, with what the header has no field for
                (:mod:`zoo.codec.extras`): lens, place, artist, lens shading, BaselineExposure. Without it, these are lost.
            progress: called after every tile with (done, all).

        Raises:
            ZooError: X-Trans, no such quality, a photo that the format does not hold, latents that are not finite.
        """
        seen = self._seen(raw, denoised)
        return self._pack(raw, seen, quality, None, make_preview(raw) if thumbnail else b"", progress)

    def compress_to(
        self,
        raw: RawImage,
        bpp: float,
        *,
        denoised: RawImage | None = None,
        thumbnail: bool = False,
        progress: Progress | None = None,
    ) -> tuple[bytes, int]:
        """The best quality whose file takes at most ``bpp`` bits per sensor pixel, by bisection; the encoder runs once.

        Arguments as of :meth:`compress`.

        Returns:
            the bytes and the quality.

        Raises:
            ZooError: as of :meth:`compress`; or even the lowest quality takes more.
        """
        if not 0 < bpp < float("inf"):
            raise ZooError(f"a target is a number of bits per pixel above 0, not {bpp:g}")
        latents: dict[Box, RGB] = {}
        seen, preview = self._seen(raw, denoised), make_preview(raw) if thumbnail else b""

        def attempt(quality: int, progress: Progress | None = None) -> tuple[bytes, float]:
            data = self._pack(raw, seen, quality, latents, preview, progress)
            return data, 8 * len(data) / raw.mosaic.size

        low, high = self.qualities[0], self.qualities[-1]
        best, taken = attempt(low, progress)
        if taken > bpp:
            least = math.ceil(1000 * taken) / 1000  # rounded down, asking for it would fail again
            raise ZooError(
                f"{raw.path or 'photo'}: takes {least:.3f} bits per pixel at quality {low} already; ask for that or more"
            )
        while low < high:
            middle = (low + high + 1) // 2
            data, taken = attempt(middle)
            if taken <= bpp:
                low, best = middle, data
            else:
                high = middle - 1
        return best, low

    @overload
    def decompress(self, data: Source, rect: Box | None = None, salvage: Literal[False] = False) -> RGB: ...

    @overload
    def decompress(self, data: Source, rect: Box | None = None, *, salvage: Literal[True]) -> tuple[RGB, Mask]: ...

    def decompress(self, data: Source, rect: Box | None = None, salvage: bool = False) -> RGB | tuple[RGB, Mask]:
        """The picture of a file.

        Args:
            data: the bytes, or a path.
            rect: what to decode, pixels of the mosaic; None for all.
            salvage: decode what is left of a damaged file.

        Returns:
            float32 ``[H, W, 3]``, white-balanced linear camera RGB, black = 0, white = 1 (x gain), not clipped, and with the
            lens's shading (:func:`raw_of` has the gains against it); with ``salvage``
            also bool ``[H, W]``, False where damaged tiles had a part in the pixel.

        Raises:
            ZooError: no .rzc, another model's, damage, an empty or outlying rectangle.
        """
        stream = parse(data, salvage=salvage)
        area = rect or Box(0, 0, stream.header.height, stream.header.width)
        bands = self.bands(stream, rect=rect, salvage=salvage)
        rgb, whole = np.empty((*area.shape, 3), np.float32), np.empty(area.shape, bool)
        for band, mask in bands:
            rows = slice(band.y0, band.y0 + len(mask))
            rgb[rows], whole[rows] = np.moveaxis(band.rgb, 0, -1), mask
        return (rgb, whole) if salvage else rgb

    def bands(
        self, stream: Stream, *, rect: Box | None = None, salvage: bool = False, progress: Progress | None = None
    ) -> Iterator[tuple[Band, Mask]]:
        """Full-width rows of a picture, or of a rectangle of it, from top to bottom, each with its mask (rows, W).

        Raises:
            ZooError: as of :meth:`decompress`; damage shows while iterating.
        """
        header = stream.header
        header.check_model(self.name, bytes.fromhex(self.weights_sha256), self.tables, stream.name)
        if header.stride != self.stride or header.core * header.stride > MAX_TILE:
            raise ZooError(
                f"{stream.name}: tiles of {header.core} positions of {header.stride} pixels are none of {self.name};"
                " the file was not written by this program"
            )
        parts = pieces(
            stream,
            self.tables,
            self._synthesise,
            halo=self.halo,
            most=self._decoder.tile,
            rect=rect,
            salvage=salvage,
            progress=progress,
        )
        top = rect.y0 if rect else 0

        def joined() -> Iterator[tuple[Band, Mask]]:
            for y0, group in groupby(parts, key=lambda part: part.box.y0):
                row = list(group)
                rgb = np.concatenate([part.rgb for part in row], axis=2)
                yield Band(y0 - top, rgb), np.concatenate([part.whole for part in row], axis=1)

        return joined()

    def _pack(
        self,
        raw: RawImage,
        seen: RawImage,
        quality: int,
        cache: dict[Box, RGB] | None,
        thumbnail: bytes,
        progress: Progress | None,
    ) -> bytes:
        header = self._describe(raw, quality)

        def analyse(box: Box) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
            latents = cache.get(box) if cache is not None else None
            if latents is None:
                latents = self._analyse(seen, box, header.core)
                if cache is not None:
                    cache[box] = latents
            return quantise(latents, self.gains[quality], self.tables)

        return compress(header, self.tables, analyse, thumbnail=thumbnail, progress=progress)

    def _seen(self, raw: RawImage, denoised: RawImage | None) -> RawImage:
        """What the encoder is shown of a photo."""
        raw.check_bayer()
        seen = denoised or raw
        if (seen.mosaic.shape, seen.cfa, seen.wb) != (raw.mosaic.shape, raw.cfa, raw.wb):
            raise ZooError(f"{raw.path or 'photo'}: the denoised mosaic is of another photo")
        return raise_to_black(seen)

    def _describe(self, raw: RawImage, quality: int) -> Header:
        if self._encoder.tile is not None:
            core = self._encoder.tile // self._step - 2 * self._margin
        else:
            core = min(TILE // self.stride, -(-(max(raw.mosaic.shape) + 1) // self.stride))  # 1: what alignment may add
        return describe(
            raw,
            model=self.name,
            weights_sha256=bytes.fromhex(self.weights_sha256),
            tables=self.tables,
            quality=quality,
            stride=self.stride,
            core=core,
        )

    @torch.inference_mode()
    def _analyse(self, raw: RawImage, box: Box, core: int) -> RGB:
        """Latents [C, rows, columns] of a box of at most core x core positions, before they are scaled."""
        margin, step = self._margin, self._step
        # One size for all tiles, those at the edges too: files for phones take no other, and float sums depend on it.
        planes = bayer_tile(raw, (box.y0 - margin) * step, (box.x0 - margin) * step, (core + 2 * margin) * step)
        noise = raw.noise.balanced(raw.wb)
        told = torch.tensor([noise.shot]), torch.tensor([noise.read]), torch.tensor([raw.wb])
        with torch_beside(self._encoder):
            channels = self._encoder(self._contract.encode(torch.from_numpy(planes)[None], *told).numpy())
            latents = merge_twins(torch.from_numpy(channels), self._twins)[0].numpy()
        rows, columns = box.shape
        return np.ascontiguousarray(latents[:, margin : margin + rows, margin : margin + columns])

    @torch.inference_mode()
    def _synthesise(self, latents: RGB) -> RGB:
        """Dequantised latents [C, n, n] -> linear RGB [3, n * stride, n * stride]."""
        side = latents.shape[1]
        fixed = self._decoder.tile or side
        padded = np.pad(latents, ((0, 0), (0, fixed - side), (0, fixed - side)), mode="edge")
        with torch_beside(self._decoder):
            channels = split_fine(torch.from_numpy(padded[None]), self._fine)
            y = torch.from_numpy(self._decoder(channels.numpy()))
            if not y.isfinite().all():
                raise ZooError(f"{self.name} gave values that are not finite; the file or the weights are damaged")
            rgb = self._contract.picture(self._contract.joined(y))[0]
            return rgb[:, : side * self.stride, : side * self.stride].numpy()


def open_codec(
    name: str = DEFAULT_COMPRESSOR,
    *,
    encoder: TileRunner | None = None,
    decoder: TileRunner | None = None,
    threads: int | None = None,
) -> Codec:
    """A compressor with its shipped weights.

    Args:
        name: registered compressor.
        encoder, decoder: run that half elsewhere than in PyTorch, e.g. ``export.litert.runner(file)``.
        threads: of PyTorch; None for its own choice.

    Raises:
        ZooError: unknown name, no compressor, no weights or tables, no such number of threads.
    """
    check_compressor(name)
    check_threads(threads)
    file = weights.verified(name)
    tables, gains = load_tables(weights.verified_tables(name))
    if encoder is None or decoder is None:
        model = create_model(name, pretrained=True)
        encoder = encoder or TorchRunner(model.get_submodule("encoder"), threads)
        decoder = decoder or TorchRunner(model.get_submodule("decoder"), threads)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Codec(get_spec(name), tables, gains, encoder, decoder, digest)


def open_stream_codec(stream: Stream, *, decoder: TileRunner | None = None, threads: int | None = None) -> Codec:
    """The compressor that a file was made with; arguments as of :func:`open_codec`.

    Raises:
        ZooError: this version does not know it, or has no or other weights of it.
    """
    header = stream.header
    try:
        codec = open_codec(header.model, decoder=decoder, threads=threads)
    except ZooError as error:
        raise ZooError(f"{stream.name}: made with the model '{header.model}': {error}") from error
    header.check_model(codec.name, bytes.fromhex(codec.weights_sha256), codec.tables, stream.name)
    return codec


def raw_of(stream: Stream, rect: Box | None = None) -> RawImage:
    """What the writers of pictures ask of a raw: everything but its pixels, which are all zero and take no memory.

    Args:
        stream: of a file. Where its thumbnail is damaged, what :mod:`zoo.codec.extras` puts there is missing.
        rect: what was decoded; None for all.
    """
    header = stream.header
    whole = header.height, header.width
    shape = rect.shape if rect else whole
    try:
        extras, shading = read_extras(stream.thumbnail(), whole)
    except ZooError:
        extras, shading = {}, None
    if shading is not None and rect:
        shading = shading.crop(rect.y0, rect.x0, shape, whole)
    return RawImage(
        np.broadcast_to(np.uint16(0), shape),
        header.cfa, header.black, header.white, header.wb, header.xyz_to_cam, header.iso, header.noise,
        header.orientation, extras | header.metadata, stream.name, shading,
    )  # fmt: skip


def make_preview(raw: RawImage) -> bytes:
    """The thumbnail of a Bayer raw, without a network: cells averaged, balanced, developed, turned."""
    planes, _ = raw.packed()
    cells = max(1, -(-max(planes.shape) // 256))  # 2x2 cells per thumbnail pixel, each way
    rows, columns = max(1, planes.shape[1] // cells), max(1, planes.shape[2] // cells)
    cells = min(cells, planes.shape[1], planes.shape[2])  # a photo of a few rows
    small = planes[:, : rows * cells, : columns * cells].reshape(4, rows, cells, columns, cells).mean(axis=(2, 4))
    rgb = np.stack([small[0], (small[1] + small[2]) / 2, small[3]]) * np.array(raw.wb, np.float32)[:, None, None]
    if raw.shading is not None:
        rgb *= raw.shading.field((rows, columns))(0, rows)
    shown = develop(rgb, raw, linear=False, exposure=baseline_of(raw))
    picture = apply_orientation(np.rint(shown * 255).astype(np.uint8), raw.orientation)
    return make_thumbnail(picture, pack_extras(raw))
