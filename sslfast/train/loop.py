"""The training loop, the same for every method."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslfast.config import ImageConfig, PretrainConfig
from sslfast.data import batches, normalization, normalization_of
from sslfast.evaluate.knn import knn
from sslfast.evaluate.task import Task
from sslfast.grad_cache import GradCache
from sslfast.methods import method_named
from sslfast.methods.contrastive import Contrastive
from sslfast.modality import modality_of
from sslfast.schedule import scaled_learning_rate, warmup_cosine
from sslfast.train.folder import EXPORTED
from sslfast.train.launch import epoch_order, has_bfloat16, seed_everything, view_generator
from sslfast.train.lock import RunLock
from sslfast.train.log import RunLog
from sslfast.train.monitor import collapsed, embedding_statistics
from sslfast.train.optim import build_optimizer, set_learning_rate, weights_to_bfloat16
from sslfast.train.rng import set_rng_state
from sslfast.train.state import save_state
from sslfast.train.stop import Interrupted, StopRequest


@dataclass(frozen=True)
class Summary:
    """What a finished run has come to.

    `knn_accuracy` in [0, 1], None without kNN; `skipped` is the number of image files that could not be read;
    `labelled`, whether the examples have labels to judge by.
    """

    run: Path
    steps: int
    knn_accuracy: float | None
    skipped: int = 0
    labelled: bool = True


class _Embedding(torch.nn.Module):
    """A contrastive method up to its embeddings: what passes by parts, and what processes exchange gradients of."""

    def __init__(self, method: Contrastive) -> None:
        super().__init__()
        self.method = method

    def forward(self, *views: Tensor) -> tuple[Tensor, ...]:
        return self.method.embed(views)


class Training:
    """One run's networks, optimizer, images, and how far it has come."""

    def __init__(
        self,
        fabric: Any,
        config: PretrainConfig,
        run: Path,
        *,
        resume: bool = False,
        download: bool = False,
        lock: RunLock | None = None,
    ) -> None:
        self.fabric, self.config, self.run, self.lock = fabric, config, run, lock
        self.modality = modality_of(config, run if resume else None)
        # One process of a machine downloads, the others find it there.
        with fabric.rank_zero_first(local=True) if download else nullcontext():
            self.train_set = self.modality.load("train", download=download)
            judged = config.knn_every and self.train_set.labelled
            self.test_set = self.modality.load("test", download=download) if judged else None

        self.batch = config.batch_size * config.accumulate * fabric.world_size
        self.steps_per_epoch = len(self.train_set) // self.batch
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"the effective batch of {self.batch} is more than the {len(self.train_set)} training "
                f"{self.modality.unit}"
            )
        self.total = config.epochs * self.steps_per_epoch
        self.warmup = min(self.total, round(config.warmup_epochs * self.steps_per_epoch))
        self.peak = scaled_learning_rate(config.learning_rate, self.batch, config.lr_scaling)

        torch.backends.cudnn.deterministic = config.deterministic
        torch.backends.cudnn.benchmark = not config.deterministic
        # The backbone comes first after the seed: evaluation builds the same one as its random baseline.
        seed_everything(config.seed)
        self.method = method_named(config.method)(self.modality.build_backbone(), config)
        self.method.to(memory_format=torch.channels_last)  # what convolutions are fastest in, on CPUs too
        if config.sync_batchnorm and fabric.world_size > 1 and fabric.device.type == "cuda":
            self.method = torch.nn.SyncBatchNorm.convert_sync_batchnorm(self.method)
        if config.precision == "bf16-true":
            weights_to_bfloat16(self.method)
        contrasted = isinstance(self.method, Contrastive) and config.accumulate_mode == "contrast"
        self.together = config.accumulate > 1 and contrasted  # one loss of all passes
        network = _Embedding(self.method) if self.together else self.method
        if config.compile:  # in place: names of parameters stay; exchanges between processes are left to eager
            network.compile(fullgraph=fabric.world_size == 1, dynamic=False)
        self.optimizer = build_optimizer(self.method, config, fused=fabric.device.type == "cuda")
        self.model, self.stepper = fabric.setup(network, self.optimizer)
        self.losses_a_step = 1 if self.together else config.accumulate
        self.generator = view_generator(config.seed, fabric.global_rank, fabric.device)

        self.rng: dict[str, Any] | None = None  # of a checkpoint, until training begins
        self.step = self.epoch = self.position = 0  # position: steps done in this epoch
        self.saved: int | None = None  # step of the last checkpoint
        self.pending: list[Tensor] = []  # losses still on the device
        self.losses: list[float] = []  # losses since the last line of metrics
        self.output: dict[str, Any] = {}
        self.alarmed = False
        self.knn: float | None = None
        self.skipped: dict[str, str] = {}  # files that could not be read, and why

    def learning_rate(self, step: int) -> float:
        """The scheduled learning rate of a step, counted from 0."""
        return warmup_cosine(step, peak=self.peak, total=self.total, warmup=self.warmup)

    def fit(self, *, warning: str | None = None) -> Summary | None:
        """Train from where the run stands to its end, and export the backbone; None on other ranks than 0.

        Args:
            warning: what the log shall say first.
        """
        main = self.fabric.is_global_zero
        self.log = RunLog(self.run, total=self.total, step=self.step, enabled=main, config=self.config.to_dict())
        with self.log, StopRequest() as stop:
            self._announce()
            if warning:
                self.log.warning(warning)
            # Only now: some packages draw random numbers when they are imported.
            if self.rng is None:
                seed_everything(self.config.seed + self.fabric.global_rank)  # dropout differs from rank to rank
                self.save()
            else:
                set_rng_state(self.rng, self.generator)
            self._start_clock()
            while self.epoch < self.config.epochs:
                self._train_epoch(stop)
            if main:
                head = self.method.exported_head()
                self.modality.export(self.method.backbone, self.run / EXPORTED, head=head)
            if self.skipped:
                self.log.warning(f"{len(self.skipped)} image files could not be read and were skipped, see above")
        self.fabric.barrier()
        return Summary(self.run, self.step, self.knn, len(self.skipped), self.train_set.labelled) if main else None

    def _train_epoch(self, stop: StopRequest) -> None:
        config = self.config
        order = epoch_order(self.train_set, seed=config.seed, epoch=self.epoch)
        loader = batches(
            self.train_set,
            config.batch_size,
            device=self.fabric.device,
            order=order[self.fabric.global_rank :: self.fabric.world_size],
            drop_last=True,
            start=self.position * config.accumulate,
            workers=getattr(config, "workers", 0),
        )
        self.method.train()
        for _ in range(self.position, self.steps_per_epoch):
            self._train_step(loader)
            self._note_skipped(self.train_set.corrupt)
            end = self.position == self.steps_per_epoch
            if self.step % config.log_every == 0 or self.step == self.total:
                self._log_metrics()
            if end:
                self.epoch, self.position = self.epoch + 1, 0
                if self.test_set and (self.epoch % config.knn_every == 0 or self.epoch == config.epochs):
                    self._evaluate()
            stopping = self._agree(stop.requested)
            if end or stopping or (config.checkpoint_every and self.step % config.checkpoint_every == 0):
                self.save()
            if stopping and self.step < self.total:
                raise Interrupted(self.step, self.total)

    def _train_step(self, loader: Iterator[tuple[Tensor, Tensor, Tensor]]) -> None:
        accumulate = self.config.accumulate
        set_learning_rate(self.optimizer, self.learning_rate(self.step), self.peak)
        self.method.on_step(self.step, self.total)
        passes = (self.method.views(next(loader)[1], self.generator) for _ in range(accumulate))
        if self.together:
            self._backward_together(list(passes))
        else:
            for k, views in enumerate(passes):
                with self.fabric.no_backward_sync(self.model, enabled=k + 1 < accumulate):
                    self.output = self.model(views)
                    self.fabric.backward(self.output["loss"] / accumulate)
                self.pending.append(self.output["loss"].detach())
        self.stepper.step()
        self.stepper.zero_grad()
        self.step += 1
        self.position += 1
        self.log.advance(self.step)

    def _backward_together(self, passes: list[tuple[Tensor, ...]]) -> None:
        """One loss over the embeddings of all passes."""

        def compare(*embeddings: Tensor) -> Tensor:
            self.output = self.method.compare(*embeddings)
            return self.output["loss"]

        cache = GradCache(self.model, compare, None, no_sync=lambda: self.fabric.no_backward_sync(self.model))
        self.fabric.backward(cache(passes))
        self.pending.append(self.output["loss"].detach())

    def _agree(self, requested: bool) -> bool:
        """Whether to stop now; several processes must decide it together, which they do as often as they log."""
        if self.fabric.world_size == 1:
            return requested
        if self.step % self.config.log_every:
            return False
        flag = torch.tensor(float(requested), device=self.fabric.device)
        return bool(self.fabric.all_reduce(flag, reduce_op="sum").item())

    def _fetch_losses(self) -> None:
        """Move the losses from the device to `self.losses`, and refuse to go on with a broken one."""
        if not self.pending:
            return
        losses = self.fabric.all_reduce(torch.stack(self.pending).float(), reduce_op="mean").tolist()
        first = self.step - len(losses) // self.losses_a_step
        self.pending.clear()
        for k, loss in enumerate(losses):
            if not math.isfinite(loss):
                step = first + k // self.losses_a_step
                raise FloatingPointError(
                    f"the loss is {loss} at step {step + 1} with learning rate {self.learning_rate(step):.3g}; "
                    "a lower learning_rate, a longer warm-up or precision 32 may help"
                )
        self.losses += losses

    def _log_metrics(self) -> None:
        self._fetch_losses()
        scalars = dict(zip(("std", "effective_rank"), embedding_statistics(self.output["embeddings"])))
        scalars |= {
            name: value
            for name, value in self.output.items()
            if name != "loss" and isinstance(value, Tensor) and value.ndim == 0
        }
        scalars = dict(zip(scalars, torch.stack([value.float() for value in scalars.values()]).tolist()))  # one wait
        std, rank = scalars["std"], scalars["effective_rank"]
        speed = (self.step - self.clock_step) * self.batch / (time.perf_counter() - self.clock)
        values = {
            "step": self.step,
            "epoch": self.step / self.steps_per_epoch,
            "loss": math.fsum(self.losses) / len(self.losses),
            "lr": self.learning_rate(self.step - 1),
            **scalars,
            "examples_per_second": speed,
        }
        self.losses.clear()
        self.log.metrics(values)
        self.log.progress(
            f"epoch {values['epoch']:.2f}/{self.config.epochs}  step {self.step}/{self.total}  "
            f"loss {values['loss']:.4f}  lr {values['lr']:.3g}  std {std:.2f}  rank {rank:.1f}  {speed:.0f} "
            f"{self.modality.unit}/s",
            brief=f"loss {values['loss']:.4f}  {speed:.0f} {self.modality.unit}/s",
        )
        alarming = collapsed(std, rank, len(self.output["embeddings"]), self.method.collapse_std)
        if alarming and not self.alarmed:
            self.log.warning(
                f"the embeddings have collapsed at step {self.step}: their std is {std:.3f} (1 is healthy), "
                f"their effective rank {rank:.1f}; the backbone is learning nothing"
            )
        self.alarmed = alarming
        self._start_clock()

    def _evaluate(self) -> None:
        """kNN on the test examples, by the main process."""
        if self.fabric.is_global_zero:
            task = Task(
                self.train_set,
                self.test_set,
                inputs=self.modality.inputs,
                device=self.fabric.device,
                batch_size=self.config.batch_size,
                workers=getattr(self.config, "workers", 0),
            )
            # What is exported is evaluated: in float32, and in a copy, so that nothing here touches the training.
            self.knn = knn(copy.deepcopy(self.method.backbone).float(), task)["accuracy"]
            self.log.metrics({"step": self.step, "epoch": float(self.epoch), "knn_accuracy": self.knn})
            self.log.info(f"epoch {self.epoch}: kNN accuracy {self.knn:.2%}")
            self._note_skipped(self.train_set.corrupt | self.test_set.corrupt)
        self.fabric.barrier()
        self._start_clock()

    def save(self) -> None:
        """Write the checkpoint; all processes take part."""
        self._fetch_losses()
        for found in save_state(self):
            self._note_skipped(found)
        self.fabric.barrier()

    def _note_skipped(self, corrupt: dict[str, str]) -> None:
        """Name the files that could not be read and have not been named before."""
        for path, reason in corrupt.items():
            if path not in self.skipped:
                self.skipped[path] = reason
                self.log.warning(f"skipped unreadable image {path}: {reason} ({len(self.skipped)} so far)")

    def _start_clock(self) -> None:
        self.clock, self.clock_step = time.perf_counter(), self.step

    def _announce(self) -> None:
        config, fabric = self.config, self.fabric
        parameters = sum(p.numel() for p in self.method.backbone.parameters())
        verb = "resuming" if self.step else "training"
        self.log.info(
            f"{verb} {config.method} with {config.backbone} ({parameters / 1e6:.2f} M parameters) on "
            f"{len(self.train_set)} {self.modality.unit} of {config.data}, "
            f"{fabric.device.type}, precision {config.precision}"
        )
        self.log.info(
            f"effective batch {self.batch} = {config.batch_size} x {config.accumulate} accumulated x "
            f"{fabric.world_size} devices; {config.optimizer}, learning rate {self.peak:.4g} after {self.warmup} "
            f"warm-up steps; {self.total} steps = {config.epochs} epochs of {self.steps_per_epoch}"
        )
        for note in self.train_set.notes:
            self.log.info(note)
        if isinstance(config, ImageConfig):
            found = normalization_of(config)
            mean, std = (", ".join(f"{value:.4g}" for value in values) for values in found)
            whose = ", ImageNet's" if found == normalization("folder:PATH") else ""
            self.log.info(f"normalised by the mean {mean} and the std {std}{whose}")
        if self.step:
            skipped = f", with {len(self.skipped)} unreadable image files to skip" if self.skipped else ""
            self.log.info(f"continuing after step {self.step}, epoch {self.epoch + 1}{skipped}")
        for images in filter(None, (self.train_set, self.test_set)):
            self._note_skipped(images.corrupt)
        if fabric.device.type == "cpu" and config.precision.startswith("bf16") and not has_bfloat16():
            self.log.warning("this CPU does not compute in bfloat16: precision 32 is much faster")
        if self.warmup == self.total:
            self.log.warning(f"warmup_epochs {config.warmup_epochs:g} covers the whole run: no cosine follows")
