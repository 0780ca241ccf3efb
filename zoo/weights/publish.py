"""Makes shipped weights and their card from a training run: ``python -m zoo.weights.publish RUN [--quantized FILE]``."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
from pathlib import Path

from zoo import weights
from zoo.errors import ZooError

DATA_LICENCES = (
    "283 pictures: 100 CC BY-SA 4.0 (CID22), 86 from L. Condat's image database (free for research), 31 CC0, 34 Unsplash "
    "licence, 32 others free to use (Wikimedia, NASA, desktop wallpapers; CC BY-SA, CC BY, public domain); 8 HDR bands of "
    "Poly Haven (CC0)"
)


def publish(run: Path, *, folder: Path = weights.FOLDER) -> Path:
    """Write ``<name>.safetensors`` (averaged weights, float32) and ``<name>.yaml`` from a run's checkpoint.

    Returns:
        path of the weights.

    Raises:
        ZooError: no usable checkpoint.
    """
    import json

    from safetensors.torch import save_file

    from zoo.training.trainer import CHECKPOINT, read_checkpoint

    tensors, meta = read_checkpoint(run / CHECKPOINT)
    name = meta["config"]["model"]
    average = {k.removeprefix("average."): v.contiguous() for k, v in tensors.items() if k.startswith("average.")}
    file = folder / f"{name}.safetensors"
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    save_file(average, temporary)
    temporary.replace(file)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    _update_card(
        folder,
        name,
        file,
        {
            "description": f"{name}: joint denoising and demosaicing, float weights (moving average).",
            "licence": "Apache-2.0",
            "data": {"sha256": meta["data_sha256"], "licences": DATA_LICENCES},
            "training": {
                "steps": meta["step"],
                "hours": round(meta["seconds"] / 3600, 2),
                "device": meta["device"],
                "config": meta["config"],
                "validation_psnr_db": {k: round(v, 3) for k, v in log[-1]["psnr"].items()},
            },
        },
    )
    return file


def publish_quantized(source: Path, *, folder: Path = weights.FOLDER) -> Path:
    """Copy a quantised model of `zoo quantize` beside its float weights and note it on the card."""
    from quantize import QuantizedModel

    model = QuantizedModel.load(source)
    if (facts := weights.card(model.name)) is None:
        raise ZooError(f"{model.name}: publish its float weights first")
    file = folder / f"{model.name}-qat.safetensors"
    shutil.copyfile(source, temporary := file.with_name(f".{file.name}.{os.getpid()}"))
    temporary.replace(file)
    _update_card(folder, model.name, file, facts | {"quantization": {"recipe": model.recipe, **model.facts}})
    return file


def _update_card(folder: Path, name: str, file: Path, facts: dict) -> None:
    import yaml

    before = weights.card(name) or {}
    facts["sha256"] = {**before.get("sha256", {}), file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    temporary = folder / f".{name}.yaml.{os.getpid()}"
    temporary.write_text(yaml.safe_dump(facts, sort_keys=False, width=120))
    temporary.replace(folder / f"{name}.yaml")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="folder of a finished `zoo train`")
    parser.add_argument("--quantized", type=Path, help="file of `zoo quantize`")
    arguments = parser.parse_args()
    if arguments.run:
        print(publish(arguments.run))
    if arguments.quantized:
        print(publish_quantized(arguments.quantized))
