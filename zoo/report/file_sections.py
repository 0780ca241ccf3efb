"""What of the report is about files: parity, delegation, fp16 headroom, and where each one comes from."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import weights
from zoo.report.choose import LEVEL, Shelf
from zoo.report.document import Block, Chain, Row, Section, Table, Text
from zoo.report.records import Record, of_kind
from zoo.report.tables import artifacts, parity

FP16_LARGEST = 65504  # the largest finite number of IEEE 754 binary16


def files(shelf: Shelf) -> Section:
    """Size and parity of each file, what is delegated, and how far activations are from fp16's end."""
    text = (
        "Each file ran against its reference on tiles of a synthetic scene at four noise levels and of real raws before it "
        "got its name. The worst tile counts."
    )
    blocks: list[Block] = [Text(text), *artifacts(shelf.evidence), delegation(shelf.records), headroom(shelf.records)]
    return Section("Files", blocks)


def delegation(records: list[Record], model: str = "") -> Table:
    """Operators of each file, those that stay outside the delegate, and those that compute in float."""
    rows = []
    for r in of_kind(records, "artifact"):
        if model and r["model"] != model:
            continue
        audit = r["audit"]
        share, count = audit["delegated_share"], audit.get("delegates")
        parts = "on the device" if share is None else f"{share:.0%} in {count}" if count is not None else f"{share:.0%}"
        operators = ", ".join(f"{op} x {n}" for op, n in audit["ops"].items())
        outside = ", ".join(audit["not_delegated"]) or ("on the device" if share is None else "nothing")
        rows.append(Row([f"`{r['path']}`", parts, outside, operators], [r.source]))
    return Table(["file", "delegated", "outside the delegate", "operators"], rows, title="Delegation")


def headroom(records: list[Record], model: str = "") -> Table:
    """Largest activation of each fp16 file on its verification tiles against what fp16 holds."""
    rows = []
    for r in of_kind(records, "artifact"):
        largest = r["parity"].get("largest_activation")
        if largest is None or r["precision"] != "fp16" or (model and r["model"] != model):
            continue
        rows.append(
            Row([f"`{r['path']}`", f"{largest:.1f}", f"{FP16_LARGEST / largest:.0f} times", parity(r)], [r.source])
        )
    head = ["file", "largest activation", f"to {FP16_LARGEST}", "worst tile"]
    return Table(head, rows, title="fp16 headroom")


def provenance(shelf: Shelf) -> Section:
    """Per file: data and its licences, weights, command, file, numbers."""
    text = "From the licence of the training pictures to each number. Digests are the first twelve digits of sha256."
    chains = [_chain(shelf, r) for r in of_kind(shelf.records, "artifact")]
    return Section("Where each file comes from", [Text(text), *chains])


def _chain(shelf: Shelf, artifact: Record) -> Chain:
    links, sources = [], [artifact.source]
    card = weights.card(artifact["model"])
    if card:
        links.append(("training data", f"{card['data']['licences']}; list {card['data']['sha256'][:12]}"))
        links += list(_weights(artifact, card))
    else:
        links.append(("weights", "no card ships with them"))
    links.append(("command", f"`{artifact['command']}`, {artifact['date'][:10]}"))
    size = f"{artifact['size_bytes'] / 1000:.0f} kB"
    links.append(("file", f"`{artifact['path']}`, {size}, `{artifact['sha256'][:12]}`; {parity(artifact)}"))
    score = shelf.score(artifact["model"], artifact["target"], artifact["precision"], artifact)
    if score:
        level = f"{score.psnr[LEVEL]:.2f} dB at {LEVEL}" if LEVEL in score.psnr else "no " + LEVEL
        links.append(("quality", f"{level} ({score.basis})"))
        sources += score.sources
    for r in of_kind(shelf.records, "latency"):
        if r["artifact"] == artifact["path"]:
            spread = f"{r['ms']['median']:.2f} ms per tile (p10 {r['ms']['p10']:.2f}, p90 {r['ms']['p90']:.2f})"
            links.append(
                ("time", f"{spread}, {r['ms_per_megapixel']:.1f} ms/MP, {r['threads']} thread(s), {r.machine}")
            )
            sources.append(r.source)
    return Chain(f"`{artifact['path']}`", links, sources)


def _weights(artifact: Record, card: dict) -> Iterator[tuple[str, str]]:
    """The weights' files and their training; says so where the file was exported from others."""
    names = {digest: name for name, digest in card["sha256"].items()}
    floats = f"{artifact['model']}.safetensors"
    training, tuning = card.get("training", {}), card.get("quantization", {}).get("training", {})
    if floats in card["sha256"]:
        told = f"`{floats}` {card['sha256'][floats][:12]}, licence {card['licence']}"
        if {"steps", "hours"} <= set(training):
            told += f"; {training['steps']:,} steps, {training['hours']:g} h, {training.get('device', 'device not recorded')}"
        yield "float weights", told
    digest = artifact["weights_sha256"]
    used = names.get(digest)
    if used is None:
        yield "exported from", f"{str(digest)[:12]}: **not the weights that ship now**"
    elif used != floats:
        steps = (
            f"; {tuning['steps']:,} steps of QAT, {tuning['hours']:g} h" if {"steps", "hours"} <= set(tuning) else ""
        )
        yield "int8 weights", f"`{used}` {digest[:12]}{steps}"
