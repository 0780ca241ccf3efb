"""Shipped weights and their card from a training run; of a compressor also its entropy tables, counted on the run's pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import weights
from zoo.errors import ZooError
from zoo.files import replacing
from zoo.weights.cards import earlier, update_card

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from zoo.codec.tables import EntropyTables
    from zoo.data.pool import ImagePool
    from zoo.data.synth import RawBatch
    from zoo.models.bayer_codec import BayerCodec
    from zoo.training.config import TrainConfig

_FITTED_PATCH = 512  # sensor pixels: the tiles of files have that many
_COUNTED_RAWS = 40  # per noise level, at five qualities: 819,200 positions
_HELD_RAWS = 8
# With ranges from 32 raws one channel went beyond its own by a factor of two in calibration, and took a bit from all others.
_RANGE_BATCHES = 60


def publish(run: Path, folder: Path, *, data: Path | None = None, licences: str | None = None) -> Path:
    """Write ``<name>.safetensors`` (averaged weights) and ``<name>.yaml`` from a run's checkpoint.

    In float32, and the references in float16, in which 10 million parameters are 20 MB.

    Args:
        run: folder of the run.
        folder: where to; :func:`zoo.weights.using_weights` takes it.
        data: the run's training pictures, which a compressor's tables are counted on; None for where the run had them.
        licences: of those pictures, for the card; None for what a card that ships, or lies there, says of the same ones.

    Returns:
        path of the weights.

    Raises:
        ZooError: no usable checkpoint or log, or a run that is not done; pictures that no card knows; for a compressor no
            pictures, or a run that has diverged.
    """
    import json

    from safetensors.torch import save

    from zoo.codec.tables import save_tables
    from zoo.models.registry import create_model, get_spec, halves
    from zoo.training.checkpoint import CHECKPOINT, LOG, read_checkpoint, unfinished
    from zoo.training.transfer import averaged, spent

    tensors, meta = read_checkpoint(run / CHECKPOINT)
    if lacks := unfinished(meta):
        raise ZooError(
            f"{run}: {lacks}; run `zoo train` again to go on, or with --steps {meta['step']} to let it end there"
        )
    name = meta["config"]["model"]
    codec = get_spec(name).codec
    licences = licences or _known_licences(meta["data_sha256"], folder)
    if not licences:
        raise ZooError(f"{run}: no card knows the pictures that it was trained on; give --licences TEXT for its card")
    try:
        scores = json.loads((run / LOG).read_text().splitlines()[-1])["psnr"]
    except (OSError, ValueError, LookupError) as error:
        raise ZooError(
            f"{run / LOG}: is missing or damaged, and holds the scores for the card; `zoo train` writes it"
        ) from error
    average = {k: v.contiguous() for k, v in averaged(tensors).items()}
    try:
        create_model(name).load_state_dict(average)
    except RuntimeError as error:
        raise ZooError(
            f"{run}: holds no float weights of {name}; what `zoo quantize` made is published with --quantized FILE"
        ) from error
    if not get_spec(name).int8:
        average = {k: v.half() if v.is_floating_point() else v for k, v in average.items()}
    facts: dict[str, Any] = {}
    if codec:  # before anything is written: it is what may fail
        average, entropy, gains, facts = _make_tables(name, average, meta, data)
    with replacing(file := folder / f"{name}.safetensors", parents=True) as made:
        made.write_bytes(save(average))
        before = earlier(made, file, name)
    files, task = [file], "demosaicing" if get_spec(name).task == "demosaic" else "joint denoising and demosaicing"
    if codec:
        save_tables(folder / weights.tables_path(name).name, entropy, gains)
        files.append(folder / weights.tables_path(name).name)
        task = "joint denoising, demosaicing and compression"
    update_card(
        folder,
        name,
        files,
        {
            "description": f"{name}: {task}, float weights (moving average).",
            "licence": "Apache-2.0",
            "data": {"sha256": meta["data_sha256"], "licences": licences},
            "training": {
                **spent(meta),  # the leaderboard tells the whole budget, also of a warm start
                "device": meta["device"],
                "config": meta["config"],
                **({"asked_sha256": meta["asked_sha256"]} if meta.get("asked_sha256") else {}),
                # A compressor's hold rates too; `zoo list` averages decibels only.
                ("validation" if codec else "validation_psnr_db"): {k: round(v, 3) for k, v in scores.items()},
            },
            **({"tables": facts} if codec else {}),
            **before,
        },
        # int8 files of other weights than these are none of this model's any more.
        gone=[weights.path(name, quantized=True, half=half).name for half in halves(name)],
    )
    return file


def _known_licences(digest: str, folder: Path) -> str | None:
    """Of pictures with which weights that have a card were trained."""
    from zoo.models.registry import list_models

    cards = [weights.card(name, place) for place in (folder, None) for name in list_models()]
    for card in cards:
        known = (card or {}).get("data", {})
        if known.get("sha256") == digest:
            return str(known["licences"])
    return None


def _make_tables(
    name: str, state: dict[str, Tensor], meta: dict[str, Any], data: Path | None
) -> tuple[dict[str, Tensor], EntropyTables, npt.NDArray[np.float64], dict[str, Any]]:
    """Weights as they ship, and what :func:`zoo.training.tables.fit_tables` makes for them."""
    from zoo.data.pool import ImagePool
    from zoo.models.bayer_codec import BayerCodec, Decoder
    from zoo.models.compressor import Compressor, merge_twins
    from zoo.models.registry import create_model
    from zoo.training.config import TrainConfig, parse
    from zoo.training.tables import fit_tables
    from zoo.training.trainer import trained_on

    model = create_model(name)
    assert isinstance(model, Compressor)
    model.load_state_dict(state)
    config: TrainConfig = parse(TrainConfig, meta["config"], name)
    pictures = data or Path(config.data)
    if not pictures.is_dir():
        raise ZooError(f"{pictures}: no such folder of training pictures, which the tables need; give one with --data")
    pool = ImagePool.from_folder(pictures, min_side=config.patch)
    if pool.digest != meta["data_sha256"]:
        raise ZooError(f"{pictures}: holds other pictures than the run was trained on; give those with --data")
    if isinstance(model, BayerCodec):
        channels = _channels(model, pool, config)
        latents = merge_twins(channels, model.twins)
        factors = 1 / latents.abs().amax((0, 2, 3)).clamp_min(1e-6)
        model.rescale_latents(factors)
        model.tie_decoder()
        if isinstance(model.decoder, Decoder):
            model.decoder.level(model.fed(latents * factors[:, None, None]))
        state = {k: v.contiguous() for k, v in model.state_dict().items()}
    counted = _raws(trained_on(pool.images), pool, config, _COUNTED_RAWS, seed=13)
    tables, gains, facts = fit_tables(model, counted, validation_raws(pool, config))
    return state, tables, gains, facts | {"data_sha256": pool.digest}


def _channels(model: BayerCodec, pool: ImagePool, config: TrainConfig) -> Tensor:
    """What the encoder gives ``[N, C + K, h, w]``, on raws as training draws them."""
    import torch

    from zoo.data.synth import RawSynthesizer
    from zoo.models.contracts import contract_of

    contract, found = contract_of(model), []
    synthesizer, generator = RawSynthesizer(pool, config.patch, config.noise), torch.Generator().manual_seed(12)
    for _ in range(_RANGE_BATCHES):
        raws = synthesizer.batch(config.batch, generator)
        with torch.no_grad():
            found.append(model.encoder(contract.encode(raws.planes, raws.shot, raws.read, raws.wb)))
    return torch.cat(found)


def validation_raws(pool: ImagePool, config: TrainConfig) -> Iterator[RawBatch]:
    """Raws of pictures that training held back, one at a time, of every noise level."""
    from zoo.training.trainer import held_back

    return _raws(held_back(pool.images), pool, config, _HELD_RAWS, seed=11)


def _raws(
    pictures: Sequence[Tensor], pool: ImagePool, config: TrainConfig, count: int, *, seed: int
) -> Iterator[RawBatch]:
    """``count`` raws per noise level of random parts of pictures, large ones if there are any."""
    import torch

    from zoo.data.pool import ImagePool
    from zoo.data.synth import RawSynthesizer
    from zoo.raw.typical import NOISE_LEVELS

    large = [i for i in pictures if min(i.shape[:2]) >= _FITTED_PATCH]
    patch, chosen = (_FITTED_PATCH, large) if large else (config.patch, list(pictures))
    generator = torch.Generator().manual_seed(seed)
    for shot, read in NOISE_LEVELS.values():
        synthesizer = RawSynthesizer(ImagePool(chosen, pool.digest), patch, config.noise.at(shot, read))
        for _ in range(count):
            yield synthesizer.batch(1, generator)
