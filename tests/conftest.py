"""What all tests share."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data", default=str(ROOT / ".." / "shared" / "data"), help="folder with real raws (not shipped)")


@pytest.fixture
def data_dir(request: pytest.FixtureRequest) -> Path:
    """The folder of real raws; the test is skipped where it is absent."""
    folder = Path(request.config.getoption("--data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real raws at {folder}; give the folder with --data DIR")
    return folder


COMPRESSOR = "bayer-codec-s"


@pytest.fixture(scope="session")
def compressor_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights, tables and card of an untrained COMPRESSOR, to stand in for zoo.weights.FOLDER.

    Its transforms and priors are those that training starts from, its other layers are random.
    """
    import torch
    import yaml
    from safetensors.torch import save_file

    from zoo import weights
    from zoo.codec.tables import save_tables
    from zoo.data.pool import ImagePool
    from zoo.data.scene import linear_scene
    from zoo.data.synth import NoiseRange, RawSynthesizer
    from zoo.models.contracts import contract_of
    from zoo.models.registry import create_model
    from zoo.training.codec_start import fit_start
    from zoo.training.tables import fit_tables

    folder = tmp_path_factory.mktemp("compressor")
    for name in ("utnet-n.safetensors", "utnet-n.yaml"):  # what may denoise before it
        shutil.copy(weights.FOLDER / name, folder)
    torch.manual_seed(0)
    model = create_model(COMPRESSOR)
    codes = [torch.from_numpy((linear_scene(200, 200, seed=s) / 16) ** 0.5 * 65535).to(torch.int32) for s in range(3)]
    pool = ImagePool([c.to(torch.uint16) for c in codes], "")
    synthesizer, generator = RawSynthesizer(pool, 128, NoiseRange()), torch.Generator().manual_seed(0)
    raws = [synthesizer.batch(4, generator) for _ in range(2)]
    fit_start(model, synthesizer, generator)  # type: ignore[arg-type]
    decoder = model.get_submodule("decoder")
    for correction in (decoder.step.up.weight[decoder.expand.out_channels :], decoder.mend.second.weight):
        torch.nn.init.normal_(correction.data, std=0.01)  # they start as nothing, and would see no neighbour
    with torch.no_grad():  # within -1 to 1, as int8 decoders take them and `zoo publish` makes them
        contract = contract_of(model)
        seen = [model.encode(contract.encode(r.planes, r.shot, r.read, r.wb)) for r in raws]  # type: ignore[operator]
        model.rescale_latents(1 / torch.cat(seen).abs().amax((0, 2, 3)))  # type: ignore[operator]
        model.tie_decoder()  # type: ignore[operator]
    tables, gains, _ = fit_tables(model, raws, raws, max_rows=32)  # type: ignore[arg-type]
    file, table = folder / f"{COMPRESSOR}.safetensors", folder / f"{COMPRESSOR}-tables.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    save_tables(table, tables, gains)
    digests = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (file, table)}
    (folder / f"{COMPRESSOR}.yaml").write_text(yaml.safe_dump({"description": "for tests", "sha256": digests}))
    return folder


@pytest.fixture
def compressor(compressor_weights: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a compressor whose made-up weights are in place of the shipped ones."""
    from zoo import weights

    monkeypatch.setattr(weights, "FOLDER", compressor_weights)
    return COMPRESSOR
