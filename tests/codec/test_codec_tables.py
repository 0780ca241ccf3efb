from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from zoo.codec import EntropyTables, build, fit_index
from zoo.codec.fitting import round_rows
from zoo.codec.tables import load_tables, save_tables
from zoo.errors import ZooError


@pytest.fixture
def tables(toys: ModuleType) -> EntropyTables:
    return toys.toy_tables(4, 5, 17, -8, 1)


def test_build_keeps_the_probabilities_and_gives_the_rest_to_the_escape() -> None:
    p = np.array([[[0.25, 0.5, 0.125]], [[0.0, 1.0, 0.0]]])
    tables = build(p, -1)
    got = tables.frequencies[tables.rows[:, 0]].astype(int)
    assert (got.sum(axis=1) == 65536).all()
    np.testing.assert_allclose(got[0] / 65536, [0.25, 0.5, 0.125, 0.125], atol=3 / 65536)
    assert got[1].tolist() == [1, 65533, 1, 1]
    assert tables.low.tolist() == [-1]
    assert tables.steps.tolist() == [[65536]]


def test_equal_rows_are_stored_once() -> None:
    p = np.array([[[0.2, 0.6, 0.1], [0.1, 0.7, 0.1]], [[0.1, 0.7, 0.1], [0.2, 0.6, 0.1]]])
    tables = build(p, -1)
    assert len(tables.frequencies) == 2
    assert tables.rows[0, 0] == tables.rows[1, 1] != tables.rows[0, 1] == tables.rows[1, 0]


@pytest.mark.parametrize(
    "p",
    [
        np.full((1, 1, 2), 0.6),
        np.array([[[-0.1, 0.5]]]),
        np.array([[[np.nan, 0.5]]]),
        np.ones((2, 2)),
        np.ones((1, 0, 3)),
    ],
)
def test_build_refuses_what_are_no_probabilities(p: np.ndarray) -> None:
    with pytest.raises(ZooError, match="add up to at most 1"):
        build(p, 0)


def test_round_rows_gives_the_remainder_to_the_largest_and_the_first() -> None:
    assert round_rows(np.array([[1.0, 1.0, 1.0]]), 16).tolist() == [[6, 5, 5]]
    assert round_rows(np.array([[0.0, 3.0, 1.0]]), 13).tolist() == [[1, 9, 3]]  # 7.5 and 2.5: the first gets it
    rows = round_rows(np.random.default_rng(0).random((50, 40)) ** 9, 65536)
    assert (rows.sum(axis=1) == 65536).all()
    assert rows.min() >= 1


def test_fit_index_counts_neighbours() -> None:
    tables = build(np.full((2, 1, 2), 0.4), -1)
    stripes = np.array([[0, 1] * 20] * 40)
    fitted = fit_index(tables, [stripes])
    # In vertical stripes left and up always differ (but at the edge); left 0, up 1 is followed by 1.
    both = fitted.index_left[0] + fitted.index_up[1]
    assert both[1] > 65000
    both = fitted.index_left[1] + fitted.index_up[0]
    assert both[0] > 65000
    with pytest.raises(ZooError, match="0 to 1"):
        fit_index(tables, [np.array([[2]])])


def test_saved_tables_come_back_with_their_name(tables: EntropyTables, tmp_path: Path) -> None:
    tables.save(tmp_path / "t.safetensors")
    again = EntropyTables.load(tmp_path / "t.safetensors")
    assert again.sha256 == tables.sha256
    for name, tensor in tables.tensors().items():
        np.testing.assert_array_equal(again.tensors()[name], tensor)
    assert [f.name for f in tmp_path.iterdir()] == ["t.safetensors"]


def test_sha256_tells_any_change(tables: EntropyTables) -> None:
    names = {tables.sha256}
    for name, tensor in tables.tensors(prefix="").items():
        changed = tensor.copy()
        changed.flat[0] += 1
        if name.startswith(("index", "freq")):
            changed.flat[1] -= 1
        names.add(dataclasses.replace(tables, **{name: changed}).sha256)
    assert len(names) == 9


def test_tables_cannot_be_changed_afterwards(tables: EntropyTables) -> None:
    mine = tables.steps.copy()
    other = dataclasses.replace(tables, steps=mine)
    mine[:] = 1
    assert (other.steps == tables.steps).all()
    with pytest.raises(ValueError, match="read-only"):
        other.steps[0, 0] = 1


def test_tables_lie_in_a_checkpoint_beside_weights(tables: EntropyTables, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    mixed = {n: torch.from_numpy(t.copy()) for n, t in tables.tensors().items()} | {"conv.weight": torch.zeros(2)}
    save_file(mixed, tmp_path / "model.safetensors")
    assert EntropyTables.load(tmp_path / "model.safetensors").sha256 == tables.sha256
    assert EntropyTables.from_tensors(load_file(tmp_path / "model.safetensors")).sha256 == tables.sha256


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("frequencies", lambda t: t + 1, "65536"),
        ("frequencies", lambda t: np.where(np.arange(t.shape[1]) == 0, 0, t), "65536"),
        ("frequencies", lambda t: t.astype(float), "no uint16"),
        ("frequencies", lambda t: t[:, 0], "shapes"),
        ("rows", lambda t: t + 1000, "name table"),
        ("rows", lambda t: np.zeros((65, 5), int), "exceed"),
        ("low", lambda t: t + 20, "value 0"),
        ("low", lambda t: t - 20, "value 0"),
        ("low", lambda t: t[1:], "do not fit"),
        ("index_same", lambda t: t[1:], "index tables"),
        ("index_same", lambda t: np.full_like(t, 16384 // 2), "index_same"),
        ("index_left", lambda t: t * 2, "index_left"),
        ("index_up", lambda t: t * np.array([2, 0, 1, 1]), "index_up"),
        ("steps", lambda t: t * 0, "step is not"),
        ("steps", lambda t: t * 0 + (1 << 24) + 1, "step is not"),
        ("steps", lambda t: t + (1 << 40), "no int32"),
    ],
)
def test_invalid_tables_are_refused(tables: EntropyTables, name: str, change, problem: str) -> None:
    with pytest.raises(ZooError, match=problem):
        dataclasses.replace(tables, **{name: change(getattr(tables, name).astype(np.int64))})


def test_gains_stand_beside_the_tables_and_fit_them(tables: EntropyTables, tmp_path: Path) -> None:
    path, gains = tmp_path / "t.safetensors", 1 / tables.steps
    save_tables(path, tables, gains)
    again, stored = load_tables(path)
    assert again.sha256 == tables.sha256
    np.testing.assert_array_equal(stored, gains)
    for wrong in (-gains, gains[1:], gains * np.nan):
        save_tables(path, tables, wrong)
        with pytest.raises(ZooError, match=r"t\.safetensors: holds no gains that fit"):
            load_tables(path)
    tables.save(path)
    with pytest.raises(ZooError, match="no gains"):
        load_tables(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ZooError, match="folder: cannot be written"):
        save_tables(tmp_path / "folder", tables, gains)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["folder", "t.safetensors"]


def test_damaged_files_are_refused_in_one_line(tables: EntropyTables, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="cannot be read"):
        EntropyTables.load(tmp_path / "none.safetensors")
    path = tmp_path / "t.safetensors"
    tables.save(path)
    data = path.read_bytes()
    path.write_bytes(data[:-3])
    with pytest.raises(ZooError, match=r"t\.safetensors: no safetensors"):
        EntropyTables.load(path)
    path.write_bytes(data.replace(b"entropy.steps", b"entropy.stepz"))
    with pytest.raises(ZooError, match=r"t\.safetensors: .*steps missing"):
        EntropyTables.load(path)
    with pytest.raises(ZooError, match="cannot be written"):
        tables.save(tmp_path / "no" / "folder.safetensors")
    for name in ("t" * 250 + ".safetensors", "t.safetensors/t.safetensors"):  # names that cannot even be removed
        with pytest.raises(ZooError, match="cannot be written"):
            tables.save(tmp_path / name)


def test_dequantisation_is_exact_and_follows_quality(tables: EntropyTables) -> None:
    latents = np.array([-32768, -1, 0, 1, 32767], np.int16).reshape(5, 1, 1).repeat(2, axis=2)
    for quality in range(3):
        want = [int(v) * int(s) / 65536 for v, s in zip(latents[:, 0, 0], tables.steps[quality], strict=True)]
        got = tables.dequantise(latents, quality)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got[:, 0, 0], np.array(want, np.float64).astype(np.float32))
    for quality in (-1, 3):
        with pytest.raises(ZooError, match="0 to 2"):
            tables.dequantise(latents, quality)
