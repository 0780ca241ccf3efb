"""The training loop: synthesise, step, average, validate, checkpoint; stops and resumes at any moment.

One loop for one process or several (:mod:`zoo.training.distributed`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.pool import ImagePool
from zoo.data.synth import RawBatch, RawSynthesizer
from zoo.errors import ZooError
from zoo.files import check_folder, replacing
from zoo.models.compressor import Compressor
from zoo.models.contracts import contract_of
from zoo.raw.typical import NOISE_LEVELS
from zoo.training import distributed
from zoo.training.allocator import keep_freed_memory
from zoo.training.checkpoint import CHECKPOINT, LOG, check_same_run, load_network, read_checkpoint
from zoo.training.config import TrainConfig
from zoo.training.dark_channels import LIFT, DarkChannels
from zoo.training.losses import display_psnr, restoration_loss
from zoo.training.machine import STOPS, StopSignal, computes_bf16, device_name, progress_console
from zoo.training.optim import make_optimizers
from zoo.training.transfer import NOTHING, Teacher, cost, digest_of, load_initial, part

__all__ = ["CHECKPOINT", "Trainer", "held_back", "make_trainer", "read_checkpoint", "trained_on"]

_VALIDATED = 192  # sensor pixels a side of a validation patch, where pictures are as large
_LAST = 1e-3  # learning rate of the last step, of the peak's
_SEED_STEP = 1_000_003  # between the processes of one run
_RANGE_SHARE = 4  # every fourth patch of a batch pays for ranges: all of them cost a tenth of a step's time
_HELD_BACK = 20  # every 20th picture of the folder validates and is never trained on


class Trainer:
    """One run in one folder.

    Args:
        model: a registered model, or a graph prepared for QAT, which has the contract of ``config.model``.
        config: the run.
        pool: clean pictures.
        folder: where checkpoint, log and TensorBoard events go; a checkpoint found there is resumed.

    Attributes:
        stopped: number of the signal that ended :meth:`run` before its last step, 0 for none.

    Raises:
        ZooError: weights to start or learn from that do not fit, X-Trans for a Bayer network, a folder of another run.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, pool: ImagePool, folder: Path) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # The configuration goes into checkpoints and cards, which are to say what was computed.
        self.config = config if computes_bf16(self.device) else dataclasses.replace(config, precision="fp32")
        self.folder = folder
        self.contract = contract_of(model, config.model)
        resumes = (folder / CHECKPOINT).exists()
        if config.init and not resumes:
            load_initial(model, config.init)
        self.before = cost(config.init) if config.init and not resumes else NOTHING
        self.model = model.to(self.device)
        if self.device.type == "cpu":
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        held = held_back(pool.images)
        train = trained_on(pool.images)
        self.digest = pool.digest
        self.data = RawSynthesizer(
            ImagePool(train, pool.digest).to(self.device),
            config.patch,
            config.noise,
            config.cfa,
            textured=config.textured,
            displayed=config.displayed,
        )
        self.generator = torch.Generator(self.device).manual_seed(config.seed + _SEED_STEP * distributed.rank())
        self.validation = self._validation_batches(ImagePool(held, pool.digest).to(self.device))
        if config.rounded and self.contract.int8_range is None:
            raise ZooError(f"{config.model}: contract {self.contract.name} has no int8 input; leave 'rounded' out")
        self.teacher = Teacher(config.teacher, self.device) if config.teacher else None
        for network in (self, self.teacher):
            if network is not None and config.cfa != "bayer" and network.contract.cfa != "any":
                raise ZooError(f"cfa is {config.cfa}, but contract {network.contract.name} knows only Bayer mosaics")
        # A name may stand for other weights by the time that a run goes on.
        self.asked = {key: digest_of(source) for key in ("teacher", "denoiser") if (source := getattr(config, key))}
        self.parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        # Batch norms behave differently in training, and what they count belongs to the weights that are shipped.
        norms = [(n, m) for n, m in self.model.named_modules() if isinstance(m, nn.BatchNorm2d)]
        self._has_norms = bool(norms)
        self._counted = {f"{n}.{key}": b for n, m in norms for key, b in m.named_buffers()}
        distributed.share(self.model.state_dict().values())
        self.average = {n: t.detach().clone() for n, t in self._tracked().items()}
        adamw = getattr(model, "adamw", ())
        self.optimizers = make_optimizers(self.parameters, config.lr, config.kernel_lr, config.weight_decay, adamw)
        self.step = 0
        self.stopped = 0
        self.seconds = 0.0
        self._overflow: list[Tensor] = []
        for name, limit in getattr(model, "range_limits", {}).items():
            model.get_submodule(name).register_forward_hook(self._watch_range(limit))
        self._dark = DarkChannels(model)
        if resumes:
            self._resume()

    def _tracked(self) -> dict[str, Tensor]:
        """What is averaged, validated and shipped, live."""
        return {**self.parameters, **self._counted}

    def run(self, time_budget: float = math.inf) -> dict[str, float]:
        """Train to the configured step, the time budget (seconds) or an interrupt; always ends with a checkpoint.

        Returns:
            the last validation: PSNR in dB per noise level and their mean; empty in all processes but the first.
        """
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        check_folder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        keep_freed_memory()
        first = distributed.rank() == 0
        writer = _summary_writer(self.folder) if first else None
        begun, saved, running = time.monotonic(), time.monotonic(), None
        before = self.seconds
        stop = StopSignal()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=progress_console(), disable=not first) as progress, stop:
            bar = progress.add_task(self.config.model, total=self.config.steps, completed=self.step)
            while self.step < self.config.steps and not self._any(
                bool(stop.asked) or time.monotonic() - begun >= time_budget
            ):
                loss = self._train_step()
                running = loss if running is None else 0.99 * running + 0.01 * loss
                self.seconds = before + time.monotonic() - begun
                progress.update(bar, completed=self.step)
                if first and self.step % self.config.validate_every == 0:
                    scores = self.validate()
                    self._log(writer, running, scores)
                    progress.update(bar, description=f"{self.config.model} {scores['mean']:.2f} dB")
                if self._any(time.monotonic() - saved > self.config.checkpoint_every):
                    self.save()
                    saved = time.monotonic()
            self.save()  # before validation, in which a second signal ends the program
            if self.step < self.config.steps:
                self.stopped = next((int(n) for n in STOPS if self._any(stop.asked == n)), 0)
        scores = self.validate() if first else {}
        if first:
            self._log(writer, running, scores)
        return scores

    def _any(self, flag: bool) -> bool:
        return distributed.any_of(flag, self.device)

    def _train_step(self) -> float:
        batch = self.data.batch(self.config.batch, self.generator)
        rate = self._learning_rate()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate
        if self._has_norms:
            self.model.train()
        self._overflow.clear()
        self._dark.penalties.clear()
        loss = self.loss(batch)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        (loss + self.config.range_weight * sum(self._overflow) + LIFT * sum(self._dark.penalties)).backward()
        distributed.average([p.grad for p in self.parameters.values() if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.config.grad_clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        # The average starts short, so that early validations do not look at the initial weights.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        live = self._tracked()
        names = [n for n, t in live.items() if t.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in names], [live[n].detach() for n in names], 1 - decay)
        for name in live.keys() - set(names):  # the norms' number of batches
            self.average[name].copy_(live[name])
        value = loss.item()
        if not math.isfinite(value):
            raise ZooError(
                f"{self.folder}: the loss is {value} at step {self.step}; give another folder and a lower lr, and start from the "
                f"last checkpoint of this one with 'init: {self.folder / CHECKPOINT}'"
            )
        return value

    def loss(self, batch: RawBatch) -> Tensor:
        """What a step minimises, beside the penalty on ranges; other tasks replace it."""
        x = self.contract.encode(batch.planes, batch.shot, batch.read, batch.wb, batch.cfa)
        return restoration_loss(
            self.contract,
            x,
            self._forward(self._rounded(x)),
            batch,
            margin=self.config.margin,
            display_weight=self.config.display_weight,
            teacher=None if self.teacher is None else self._taught(batch),
            teacher_weight=self.config.teacher_weight,
        )

    def _rounded(self, x: Tensor) -> Tensor:
        """Network input of which some patches are as an int8 network sees them."""
        if not self.config.rounded or self.contract.int8_range is None:
            return x
        low, high = self.contract.int8_range
        step = (high - low) / 255
        lots = torch.rand(x.shape[0], 1, 1, 1, generator=self.generator, device=self.device)
        return torch.where(lots < self.config.rounded, (x / step).round() * step, x)

    def _extra_state(self) -> dict[str, Tensor]:
        """What else a checkpoint has to hold for the run to go on as it would have; other tasks add to it."""
        return {}

    def _load_extra_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of :meth:`_extra_state`."""

    def _watch_range(self, limit: float) -> Any:
        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            if torch.is_grad_enabled():
                some = output[::_RANGE_SHARE].float()
                self._overflow.append((some.abs() - limit).clamp_min(0).square().mean())

        return hook

    def _forward(self, x: Tensor) -> Tensor:
        if self.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            return self.model(x)

    def _taught(self, batch: RawBatch) -> Tensor:
        assert self.teacher is not None
        with self._autocast():
            return self.teacher(batch)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _learning_rate(self) -> float:
        """As a share of the peak."""
        c = self.config
        if self.step < c.warmup:
            return (self.step + 1) / c.warmup
        phase = (self.step - c.warmup) / max(1, c.steps - c.warmup)
        return _LAST + (1 - _LAST) * 0.5 * (1 + math.cos(math.pi * phase))

    def _validation_batches(self, pool: ImagePool) -> dict[str, RawBatch]:
        """The same patches at every validation, 24 per noise level; of a run without noise at none but ``clean``. Where display
        values are trained on, as many of them.
        """
        batches = {}
        noisy = self.config.noise.clean < 1
        # 16 and 6 divide it: positions of a compressor, X-Trans cells. Pictures need only hold a patch of training.
        side = min(_VALIDATED, *(min(i.shape[:2]) for i in pool.images)) // 48 * 48 or self.config.patch
        levels = {level: (s, o, 0.0) for level, (s, o) in NOISE_LEVELS.items() if noisy or not s}
        if self.config.displayed:
            levels["displayed"] = (0.0, 0.0, 1.0)
        cfa = "xtrans" if self.config.cfa == "xtrans" else "bayer"
        for level, (shot, read, displayed) in levels.items():
            fixed = self.config.noise.at(shot, read)
            synth = RawSynthesizer(pool, side, fixed, cfa, displayed=displayed)
            batches[level] = synth.batch(24, torch.Generator(self.device).manual_seed(7))
        return batches

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Scores of the averaged weights, see :meth:`_scores`; the live ones stay."""
        live = {n: t.detach().clone() for n, t in self._tracked().items()}
        self._load_parameters(self.average)
        if self._has_norms:
            self.model.eval()
        scores = self._scores()
        self._load_parameters(live)
        return scores

    def _scores(self) -> dict[str, float]:
        """Mean display PSNR of the weights in the model, per noise level and overall, dB; other tasks replace it."""
        scores = {}
        for level, batch in self.validation.items():
            x = self.contract.encode(batch.planes, batch.shot, batch.read, batch.wb, batch.cfa)
            scores[level] = float(display_psnr(self.contract, x, self._forward(x), batch, margin=16).mean())
        return {**scores, "mean": sum(scores.values()) / len(scores)}

    def load_average(self) -> None:
        """Put the averaged weights into the model, for good."""
        self._load_parameters(self.average)

    @torch.no_grad()
    def _load_parameters(self, values: dict[str, Tensor]) -> None:
        for name, tensor in self._tracked().items():
            tensor.copy_(values[name])

    def _log(self, writer: Any, loss: float | None, scores: dict[str, float]) -> None:
        self._dark.tell(self.step)
        row = {"step": self.step, "seconds": round(self.seconds, 1), "loss": loss, "psnr": scores}
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(row) + "\n")
        if writer is not None:
            if loss is not None:  # no step was left to do
                writer.add_scalar("loss", loss, self.step)
            for level, value in scores.items():
                writer.add_scalar(f"psnr/{level}", value, self.step)
            writer.flush()

    def save(self) -> None:
        """Write weights, average, optimiser, random states and step in one file, or leave the old one and raise ZooError."""
        from safetensors.torch import save

        states = distributed.gathered(self.generator.get_state(), self.device)
        if distributed.rank():
            return
        tensors = {f"model.{n}": t for n, t in self.model.state_dict().items()}
        tensors |= {f"average.{n}": t for n, t in self.average.items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{index}.{key}": value for key, value in state.items()}
        tensors |= {_generator_key(rank): state for rank, state in enumerate(states)}
        tensors |= {f"extra.{key}": t for key, t in self._extra_state().items()}
        meta = {
            "step": self.step,
            "seconds": self.seconds,
            "processes": distributed.size(),
            "before": self.before,
            "asked_sha256": self.asked,
            "config": dataclasses.asdict(self.config),
            "data_sha256": self.digest,
            "device": device_name(self.device),
        }
        contiguous = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
        with replacing(self.folder / CHECKPOINT) as made:  # not save_file, whose errors are no OSError
            made.write_bytes(save(contiguous, {"run": json.dumps(meta)}))

    def _resume(self) -> None:
        tensors, meta = read_checkpoint(self.folder / CHECKPOINT)
        check_same_run(self.folder, meta, self.config, self.digest, self.asked)
        load_network(self.folder, self.model, part(tensors, "model."))
        average = part(tensors, "average.")
        # In their order, which files do not keep.
        self.average = {n: average[n].to(self.device) for n in self._tracked()}
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in part(tensors, f"optimizer.{number}.").items():
                index, name = key.split(".")
                state.setdefault(int(index), {})[name] = value
            layout = optimizer.state_dict()
            optimizer.load_state_dict({"state": state, "param_groups": layout["param_groups"]})
        self.step, self.before = meta["step"], meta.get("before", self.before)
        # Of as many processes as there are now, so that what they cost together stays.
        self.seconds = meta["seconds"] * meta.get("processes", 1) / distributed.size()
        self._load_extra_state(part(tensors, "extra."))
        key = _generator_key(distributed.rank())
        if key in tensors:
            self.generator.set_state(tensors[key])
        else:  # more processes than before: a stream that none of them has drawn from
            self.generator.manual_seed(self.config.seed + _SEED_STEP * distributed.rank() + self.step)


def held_back(images: list[Tensor]) -> list[Tensor]:
    """Pictures of a pool that validate and are never trained on; all of a pool too small to spare any."""
    return images[::_HELD_BACK] if len(images) > _HELD_BACK else images


def trained_on(images: list[Tensor]) -> list[Tensor]:
    """The other pictures of a pool; all of a small one."""
    return [i for n, i in enumerate(images) if n % _HELD_BACK] if len(images) > _HELD_BACK else images


def make_trainer(model: nn.Module, config: TrainConfig, pool: ImagePool, folder: Path) -> Trainer:
    """The trainer of a model's task; arguments and errors as of :class:`Trainer`."""
    if isinstance(model, Compressor):
        from zoo.training.codec import CodecTrainer

        return CodecTrainer(model, config, pool, folder)
    for name in ("denoiser", "picture_steps", "ms_ssim_weight"):
        if getattr(config, name):
            raise ZooError(f"{config.model} is no compressor and takes no {name}; leave '{name}' out")
    return Trainer(model, config, pool, folder)


def _generator_key(rank: int) -> str:
    return f"generator.{rank}" if rank else "generator"


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # the extra [train] is not installed; log.jsonl holds the same numbers
        return None
    return SummaryWriter(str(folder / "tensorboard"))
