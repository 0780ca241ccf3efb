"""Evidence files: what is in them, what is refused, and going on where a run stopped."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from PIL import Image
from small_pictures import SCORED

from zoo.errors import ZooError
from zoo.evaluation import bed, evidence
from zoo.evaluation.evidence import Growing
from zoo.evaluation.records import ImageScore, QualityRecord
from zoo.evaluation.run import evaluate
from zoo.files import alone


def score(psnr: float, bias: float = 0.0, set: str = "kodak") -> ImageScore:
    values = dict.fromkeys(bed.METRICS, bias) | {"psnr": psnr, "ssim": psnr / 100, "psnr_linear": psnr + 5}
    return ImageScore(set, "0" * 64, values, 0.5, 0.25)


def record(level: str = "iso800", **kwargs) -> QualityRecord:
    shot, read = bed.LEVELS[level]
    return QualityRecord("menon", "classical", "fp64", level, shot, read, **kwargs)


IMAGES = {"kodak/a": score(30, 0.1), "kodak/b": score(20, -0.3), "mcmaster/a": score(40, 0.2, "mcmaster")}


def test_summary_has_mean_and_worst_per_set_and_overall():
    summary = record(images=IMAGES).summary()
    assert list(summary) == ["kodak", "mcmaster", "overall"]
    assert [summary[s]["images"] for s in summary] == [2, 1, 3]
    assert summary["kodak"]["mean"]["psnr"] == 25 and summary["overall"]["mean"]["psnr"] == 30
    assert summary["overall"]["worst"]["psnr"] == {"value": 20, "image": "kodak/b"}
    # The worst bias is the one furthest from zero, with its sign.
    assert summary["overall"]["worst"]["shadow_bias_g"] == {"value": -0.3, "image": "kodak/b"}
    assert summary["overall"]["mean"]["shadow_bias_g"] == pytest.approx(0)


def test_slow_first_picture_is_not_the_methods_speed():
    images = dict(IMAGES) | {"kodak/first": ImageScore("kodak", "0" * 64, IMAGES["kodak/a"].values, 30.0, 0.25)}
    assert record(images=images).ms_per_mp() == 2000


def test_summary_of_some_pictures():
    summary = record(images=IMAGES).summary({"kodak/a", "mcmaster/a"})
    assert summary["overall"]["mean"]["psnr"] == 35 and summary["kodak"]["images"] == 1


def test_saved_evidence_is_read_back(tmp_path):
    before = record(images=dict(IMAGES), settings={"h": 1.0}, machine={"cpu": "x", "threads": 1}, date="2026-01-01")
    path = before.save(tmp_path / "a" / "b")
    assert path.name == "bayer-menon-classical-fp64-iso800.json"
    assert QualityRecord.load(path) == before
    content = json.loads(path.read_text())
    assert content["kind"] == "quality" and content["sets"] == {"kodak": 2, "mcmaster": 1} and content["seconds"] == 1.5
    assert content["ms_per_mp"] == before.ms_per_mp() == 2000 and before.ms_per_mp({"kodak/x"}) is None
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing temporary stays


def corrupt(content: dict, where: list, value: object) -> dict:
    inner = content
    for key in where[:-1]:
        inner = inner[key]
    if value is None:
        del inner[where[-1]]
    else:
        inner[where[-1]] = value
    return content


@pytest.mark.parametrize(
    ("where", "value", "problem"),
    [
        (["kind"], "latency", "no quality evidence"),
        (["schema"], 99, "no quality evidence"),
        (["name"], None, "damaged"),
        (["level"], 3, "damaged"),
        (["surprise"], 1, "damaged"),
        (["machine"], "fast", "damaged"),
        (["images"], None, "damaged"),
        (["benchmark"], "bayern", "damaged"),
        (["edge"], 0.3, "damaged"),
        (["images", "kodak/a", "values", "surprise"], 1.0, "damaged"),
        (["images", "kodak/a", "megapixels"], None, "damaged"),
        (["images", "kodak/a", "values", "ssim"], None, "damaged"),
        (["images", "kodak/a", "values", "ssim"], "good", "damaged"),
        (["images", "kodak/a", "values", "psnr"], 31.0, "summary is not that of its pictures"),
        (["summary", "overall", "mean", "psnr"], 50.0, "summary is not that of its pictures"),
    ],
)
def test_wrong_evidence_is_refused(tmp_path, where, value, problem):
    path = record(images=dict(IMAGES)).save(tmp_path)
    path.write_text(json.dumps(corrupt(json.loads(path.read_text()), where, value)))
    with pytest.raises(ZooError, match=problem) as caught:
        QualityRecord.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_damaged_files_are_refused(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ZooError, match="evaluate again"):
        QualityRecord.load(path)
    with pytest.raises(ZooError, match="no such evidence"):
        QualityRecord.load(tmp_path / "y.json")


def test_numbers_that_are_not_finite_are_not_written(tmp_path):
    path = record(images=dict(IMAGES)).save(tmp_path)
    before = path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        record(images={"kodak/a": score(float("nan"))}).save(tmp_path)
    assert path.read_text() == before and len(list(tmp_path.iterdir())) == 1


def test_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match=r"file.*cannot be written"):
        record(images=dict(IMAGES)).save(tmp_path / "file")


class Counting:
    """A poor method that counts its calls, and fails at one of them."""

    def __init__(self, fail_at: int = -1) -> None:
        self.calls, self.fail_at = 0, fail_at

    def __call__(self, mosaic, wb, shot, read):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        return np.broadcast_to(mosaic, (3, *mosaic.shape)).astype(np.float32)


def test_second_run_measures_nothing_and_writes_nothing(pictures_dir, tmp_path):
    pictures = bed.find_pictures(pictures_dir)
    method, ticks = Counting(), []
    first = evaluate(method, record(), pictures, tmp_path, progress=lambda: ticks.append(1))
    assert method.calls == len(pictures) + 1 == len(ticks) + 1 == 5  # and the slanted edge
    assert 0 < first.edge["mtf50"] < 1 and set(first.images) >= {"kodak/kodak_01", "mine/holiday"}
    path = first.path(tmp_path)
    stamp = path.stat().st_mtime_ns
    assert evaluate(method, record(command="again"), pictures, tmp_path).images == first.images
    assert method.calls == 5 and path.stat().st_mtime_ns == stamp


def test_interrupted_run_goes_on(pictures_dir, tmp_path):
    pictures = bed.find_pictures(pictures_dir)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Counting(fail_at=3), record(), pictures, tmp_path)
    method = Counting()
    assert len(evaluate(method, record(), pictures, tmp_path).images) == 4
    assert method.calls == 3  # two pictures and the edge


def test_subset_does_not_throw_the_rest_away(pictures_dir, tmp_path):
    evaluate(Counting(), record(), bed.find_pictures(pictures_dir), tmp_path)
    method = Counting()
    evaluate(method, record(), bed.find_pictures(pictures_dir, ["mine"]), tmp_path, fresh=True)
    assert method.calls == 2  # the picture and the edge
    assert len(QualityRecord.load(record().path(tmp_path)).images) == 4


def test_evidence_of_an_older_schema_is_replaced(pictures_dir, tmp_path):
    path = record(images=dict(IMAGES)).save(tmp_path)
    path.write_text(json.dumps(corrupt(json.loads(path.read_text()), ["schema"], 1)))
    result = evaluate(Counting(), record(), bed.find_pictures(pictures_dir, ["mine"]), tmp_path)
    assert list(result.images) == ["mine/holiday"] == list(QualityRecord.load(path).images)


def test_evidence_of_a_newer_schema_is_not_overwritten(pictures_dir, tmp_path):
    path = record(images=dict(IMAGES)).save(tmp_path)
    path.write_text(text := json.dumps(corrupt(json.loads(path.read_text()), ["schema"], 99)))
    with pytest.raises(ZooError, match="no quality evidence of schema"):
        evaluate(Counting(), record(), bed.find_pictures(pictures_dir, ["mine"]), tmp_path)
    assert path.read_text() == text


def test_benchmark_without_an_edge_measures_none(pictures_dir, tmp_path):
    method = Counting()
    own = QualityRecord("menon", "classical", "fp64", "clean", 0, 0, benchmark="demosaic")
    result = evaluate(method, own, bed.find_pictures(pictures_dir), tmp_path)
    assert method.calls == 4 and result.edge == {}
    assert result.path(tmp_path).name == "demosaic-menon-classical-fp64-clean.json"
    assert set(result.images["mine/holiday"].values) == {"psnr", "ssim", "ms_ssim"}


@pytest.mark.parametrize("change", [{"weights_sha256": "1" * 64}, {"settings": {"h": 2}}, {"bed_version": 0}])
def test_another_method_starts_anew(pictures_dir, tmp_path, change):
    evaluate(Counting(), record(), bed.find_pictures(pictures_dir), tmp_path)
    result = evaluate(Counting(), record(**change), bed.find_pictures(pictures_dir, ["mine"]), tmp_path)
    assert list(result.images) == ["mine/holiday"]


def test_changed_picture_is_measured_again(pictures_dir, tmp_path):
    first = evaluate(Counting(), record(), bed.find_pictures(pictures_dir), tmp_path)
    before = first.images["mine/holiday"]
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SCORED, 3), np.uint8)).save(
        pictures_dir / "mine" / "holiday.png"
    )
    method = Counting()
    after = evaluate(method, record(), bed.find_pictures(pictures_dir), tmp_path).images["mine/holiday"]
    assert method.calls == 1 and after.sha256 != before.sha256


def test_two_evaluations_at_once_lose_no_picture(tmp_path):
    record(images={"kodak/a": score(30), "kodak/old": score(10)}, edge={"mtf50": 0.2}).save(tmp_path)
    with Growing(record(), tmp_path, {"kodak/a"}) as first, Growing(record(), tmp_path) as second:
        first.add("kodak/b", score(20))
        second.add("mcmaster/a", score(40))
    found = QualityRecord.load(record().path(tmp_path))
    # The outer one renews a: it does not take the old value back from the other, which had read it.
    assert {k: i.values["psnr"] for k, i in found.images.items()} == {"kodak/b": 20, "kodak/old": 10, "mcmaster/a": 40}
    assert found.edge == {"mtf50": 0.2} and first.result() == found
    with Growing(record(weights_sha256="1" * 64), tmp_path) as other:
        other.add("kodak/c", score(1))
    assert list(QualityRecord.load(record().path(tmp_path)).images) == ["kodak/c"]


def test_writing_waits_for_the_other_process(tmp_path):
    growing = Growing(record(), tmp_path)
    growing.add("kodak/a", score(30))
    thread = threading.Thread(target=growing.__exit__)
    with alone(tmp_path):
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        record(images={"kodak/b": score(20)}).save(tmp_path)
    thread.join(10)
    assert sorted(QualityRecord.load(record().path(tmp_path)).images) == ["kodak/a", "kodak/b"]


def test_fresh_measures_the_edge_again(pictures_dir, tmp_path, monkeypatch):
    """Also where the file was written in between, which takes in what it held."""
    pictures = bed.find_pictures(pictures_dir)
    path = evaluate(Counting(), record(), pictures, tmp_path).path(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"edge": {"mtf50": 0.9}}))
    monkeypatch.setattr(evidence, "_SAVE_EVERY", 0.0)
    assert evaluate(Counting(), record(), pictures, tmp_path, fresh=True).edge != {"mtf50": 0.9}
