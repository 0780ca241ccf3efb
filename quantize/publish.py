"""A quantised model beside the float weights that it was made from."""

from __future__ import annotations

import shutil
from pathlib import Path

from quantize.model import QuantizedModel
from quantize.qat import state_sha256
from zoo import weights
from zoo.errors import ZooError
from zoo.files import replacing
from zoo.training.checkpoint import unfinished
from zoo.weights.cards import earlier, update_card


def publish_quantized(source: Path, folder: Path) -> Path:
    """Copy a quantised model of `zoo quantize` beside its float weights and note it on the card.

    Raises:
        ZooError: there are no float weights, or they are not those that it was made from; fine-tuning that is not done.
    """
    from safetensors.torch import load_file

    from zoo.models.registry import create_model

    model = QuantizedModel.load(source)
    training = model.facts.get("training")
    if training and (lacks := unfinished({"step": training["steps"], "config": training["config"]})):
        raise ZooError(f"{source}: {lacks}; run `zoo quantize` again to go on")
    if (facts := weights.card(model.name, folder)) is None:
        raise ZooError(f"{folder}: holds no float weights of {model.name}; publish those first")
    network = create_model(model.name)
    with weights.using_weights(folder):
        network.load_state_dict(load_file(weights.verified(model.name)))
    if model.facts.get("start_sha256") != state_sha256(network):
        raise ZooError(f"{source}: was made from other float weights than {model.name} has; quantise those")
    file = folder / weights.path(model.name, quantized=True, half=model.half).name
    with replacing(file) as made:
        shutil.copyfile(source, made)
        before = earlier(made, file, model.name)
    record = {"recipe": model.recipe, **model.facts}
    noted = {"quantization": {**facts.get("quantization", {}), model.half: record} if model.half else record}
    update_card(folder, model.name, [file], facts | noted | before)
    return file
