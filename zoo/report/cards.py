"""Model cards: one Markdown file per model that ships weights, from its evidence and its weights' card."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import weights
from zoo.evaluation.leaderboard import LEVELS
from zoo.models.registry import DEFAULT_MODEL, HALVES, ModelSpec, get_spec
from zoo.report.choose import LEVEL, Shelf
from zoo.report.document import Row, Section, Table, Text
from zoo.report.file_sections import delegation, headroom
from zoo.report.markdown import document
from zoo.report.quality_tables import INT8, number, quantization, rate_distortion
from zoo.report.records import by_machine, of_kind
from zoo.report.tables import parity

_NOTE = "<!-- made by `zoo report --update` from evidence/ and zoo/weights/; do not edit -->"


def card(shelf: Shelf, name: str) -> str:
    """The card of a model that ships weights, as Markdown."""
    spec, facts = get_spec(name), weights.card(name)
    assert facts is not None
    if spec.codec is not None:
        return _compressor(shelf, spec, facts)
    lead = (
        f"{_NOTE}\n\n{facts['description']} {spec.params:,} parameters, {spec.gmac_per_mp:.1f} GMAC per sensor megapixel, "
        f"contract `{spec.contract}`, halo {spec.halo} packed pixels. Licence of code and weights: {facts['licence']}."
    )
    # References, which users export in float, have neither int8 nor files of ours.
    made = [
        Section("Files", [_files(shelf, name), delegation(shelf.records, name), headroom(shelf.records, name)]),
        Section("Time", [Text(_TIME), *_times(shelf, name)]),
    ]
    sections = [
        Section("Quality", [Text(_QUALITY), *_quality(shelf, spec)]),
        *(made if spec.int8 else []),
        Section("Training", [_training(facts, spec)]),
        Section("Limits", [Text(_limits(spec))]),
        Section("Run it", [Text(_commands(spec))]),
    ]
    return document(name, lead, sections)


def _compressor(shelf: Shelf, spec: ModelSpec, facts: dict) -> str:
    codec, name = spec.codec, spec.name
    assert codec is not None
    lead = (
        f"{_NOTE}\n\n{facts['description']} {spec.params:,} parameters, {codec.encoder_gmac_per_mp:.1f} GMAC per megapixel "
        f"to encode, {codec.decoder_gmac_per_mp:.1f} to decode, {codec.latents} integers per "
        f"{codec.stride}x{codec.stride}, "
        f"contract `{spec.contract}`. Licence of code and weights: {facts['licence']}."
    )
    sections = [
        Section("Rate and distortion", [Text(_RATE), rate_distortion(shelf.evidence, name), _tables(facts)]),
        Section("Files", [_files(shelf, name), delegation(shelf.records, name)]),
        Section("Time", [Text(_TIME), *_times(shelf, name)]),
        Section("Training", [_training(facts, spec)]),
        Section("Limits", [Text(_limits(spec))]),
        Section("Run it", [Text(_codec_commands(spec))]),
    ]
    return document(name, lead, sections)


def _tables(facts: dict) -> Table:
    told = facts["tables"]
    rates = ", ".join(f"{q}: {rate:.2f}" for q, rate in told["bits_per_pixel"].items())
    rows = [
        ("values with a frequency of their own", str(told["values"])),
        ("distinct rows of frequencies", str(told["rows"])),
        ("symbols counted", f"{told['symbols']:,}"),
        ("of pictures held back, the share that escapes", f"{told['escapes']:.1e}"),
        ("of the same, bits per pixel by quality, all noise levels", rates),
    ]
    return Table(["entropy tables", ""], [Row(row) for row in rows])


_RATE = (
    "BD-rate on pictures that were not trained on, in real bytes, distortion against the clean picture "
    "(`zoo evaluate --benchmark rate-distortion`)."
)
_QUALITY = (
    "PSNR of developed sRGB in dB, on the pictures that all methods of the leaderboard share (Kodak and McMaster, which were not "
    'trained on), mosaicked with noise at four levels; `docs/architecture.md`, "The bed".'
)
_TIME = (
    "Of the network alone, per sensor megapixel of the whole tile. These are computers, not phones, unless named so."
)
_LIMITS = (
    "Trained on synthetic mosaics of sRGB pictures with Poisson-Gaussian noise: patterns of real sensors that this lacks "
    "(banding, hot pixels in numbers, quad Bayer) are outside what it knows. {told} Losses against float and worst pictures "
    "stand above; no phone's NPU or GPU is among the records unless a table names it."
)
_TOLD = "It needs the noise levels S and O; wrong ones smooth too much or too little."
_SILENT = "It knows no noise: what a photo has stays in it and may be drawn out as texture. An app passes S = O = 0."
_UNTOLD = "It is not told how much noise there is."


def _limits(spec: ModelSpec) -> str:
    told = _UNTOLD if spec.contract == "display_codec_v1" else _SILENT if spec.task == "demosaic" else _TOLD
    return _LIMITS.format(told=told)


def _commands(spec: ModelSpec) -> str:
    name = spec.name
    return _shell(
        f"zoo denoise IMG_0001.dng{'' if name == DEFAULT_MODEL else f' --model {name}'} -o out.tif",
        f"zoo export {name} --target litert{'' if spec.int8 else ' --precision fp16'}",
        f"zoo evaluate {name} --data PICTURES --noise clean{'' if spec.task == 'demosaic' else f',{LEVEL}'}",
    )


def _codec_commands(spec: ModelSpec) -> str:
    lines = [
        f"zoo compress IMG_0001.dng -o photo.rzc --model {spec.name} --quality 40",
        "zoo decompress photo.rzc -o out.tif",
    ]
    if spec.int8:  # references hold 5x5 transposed convolutions, which LiteRT does not convert
        lines.append(f"zoo export {spec.name} --target litert")
    return _shell(*lines)


def _shell(*lines: str) -> str:
    return "\n".join(["```sh", *lines, "```"])


def _quality(shelf: Shelf, spec: ModelSpec) -> Iterator[Table]:
    name, rows = spec.name, []
    for label, (target, precision) in {"float": ("torch", "fp32"), **INT8}.items():
        score = shelf.score(name, target, precision)
        if score is not None and score.basis == "measured":
            cells = [label, *(number(score.psnr.get(level), ".2f") for level in LEVELS), number(score.noisy, ".2f")]
            rows.append(Row(cells, score.sources))
    yield Table(["precision", *LEVELS, "noisy mean"], rows)
    if not spec.int8:
        return
    lost = quantization(shelf.evidence)
    yield Table(lost.head[1:], [Row(r.cells[1:], r.sources) for r in lost.rows if r.cells[0] == name], lost.notes)


def _files(shelf: Shelf, name: str) -> Table:
    rows = []
    for r in of_kind(shelf.records, "artifact"):
        if r["model"] == name:
            digests = (f"`{r['sha256'][:12]}`", f"`{str(r['weights_sha256'])[:12]}`")
            rows.append(Row([f"`{r['path']}`", f"{r['size_bytes'] / 1000:.0f}", parity(r), *digests], [r.source]))
    return Table(["file", "kB", "worst tile", "sha256", "weights"], rows)


def _times(shelf: Shelf, name: str) -> list[Table]:
    head = ["runtime", "precision", "threads", "ms per tile: median (p10-p90)", "ms/MP", "over fp32"]
    halves = get_spec(name).codec is not None
    if halves:
        head = ["half", *head]
    found = [r for kind in ("latency", "phone") for r in of_kind(shelf.records, kind) if r.get("model") == name]
    tables = []
    for machine, records in by_machine(found).items():
        rows = []
        for r in sorted(
            records, key=lambda r: (r.get("half", ""), r["threads"], r["target"], r["precision"], r.source)
        ):
            ratio = r.get("speedup_over_fp32")
            cells = [*([r.get("half", "-")] if halves else []), r["target"], r["precision"], str(r["threads"])]
            cells += [
                f"{r['ms']['median']:.2f} ({r['ms']['p10']:.2f}-{r['ms']['p90']:.2f})",
                f"{r['ms_per_megapixel']:.1f}",
            ]
            rows.append(Row([*cells, "-" if ratio is None else f"{ratio:.2f}x"], [r.source]))
        tables.append(Table(head, rows, title=machine))
    return tables or [Table(head, [])]


def _training(facts: dict, spec: ModelSpec) -> Table:
    training, quantization = facts.get("training", {}), facts.get("quantization", {})
    stages = {half: quantization[half] for half in HALVES if half in quantization} or {"": quantization}
    rows = [
        ("training pictures", f"{facts['data']['licences']}; sha256 of the list `{facts['data']['sha256'][:12]}`"),
        ("steps, hours, device", _effort(training) + f", {training.get('device', 'device not recorded')}"),
        *(
            (f"int8 {half}".strip(), f"{stage.get('recipe', '-')}, {_effort(stage.get('training', {}))}")
            for half, stage in (stages.items() if spec.int8 else ())
        ),
        *((f"`{file}`", f"sha256 `{digest}`") for file, digest in sorted(facts["sha256"].items())),
    ]
    return Table(["what", "weights' card"], [Row(row) for row in rows])


def _effort(stage: dict) -> str:
    return f"{stage['steps']:,} steps, {stage['hours']:g} h" if {"steps", "hours"} <= set(stage) else "not recorded"
