"""Predicted memory and seconds of a run, from counts and the rates of a device.

Everything here is computed; `benchmarks/plan.py` compares it with measured runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from rediffuse.config.schema import Rows
from rediffuse.costs.architecture import Architecture
from rediffuse.costs.devices import GIB, Device
from rediffuse.costs.rows import GPU_SHARE, gradient_bytes
from rediffuse.costs.tape import FULL
from rediffuse.costs.work import Work
from rediffuse.costs.workload import Workload

MIB = 2**20
PROCESS_BYTES = 500 * MIB
"""Of a Python process with torch, diffusers and transformers."""
LANE_BYTES = 30 * MIB
"""Of what the allocator keeps for each thread."""
PAGE_BYTES = 90 * MIB
"""Of the report, its charts and the evaluation."""
CPU_SLACK = 1.8
"""How much more memory activations take on a CPU than is alive, since freed memory is in
fragments.
"""
GPU_SLACK = 1.15
"""The same of torch's allocator on a GPU, with the workspace of its libraries."""
CONTEXT_BYTES = 500 * MIB
"""Of a GPU's driver and libraries."""
REFERENCE_WAYS = 12
"""Trajectories of an evaluation whose steps are compared with the pretrained model."""
MOST_EMBEDDING_BYTES = 256 * MIB


@dataclass(frozen=True)
class Prediction:
    """What a run is predicted to need.

    Attributes:
        device: Where it computes.
        rows: Of each kind of pass.
        one_pass: Whether sampling computes the first update's gradients.
        memory: Bytes by part on the device; on a CPU, of the whole process.
        host: Bytes by part of the main memory beside a GPU; empty on a CPU.
        seconds: Of an epoch by phase, without rewards.
    """

    device: Device
    rows: Rows
    one_pass: bool
    memory: Mapping[str, float]
    host: Mapping[str, float]
    seconds: Mapping[str, float]

    @property
    def bytes(self) -> float:
        """All of `memory`."""
        return sum(self.memory.values())

    @property
    def epoch_seconds(self) -> float:
        """All of `seconds`."""
        return sum(self.seconds.values())

    @property
    def fits(self) -> bool:
        """Whether the memory of the device suffices."""
        usable = self.device.memory_bytes * (GPU_SHARE + 0.15)
        return self.bytes <= usable


@dataclass(frozen=True)
class Costs:
    """A model on a device, with the rows of its passes.

    Attributes:
        architecture: The model's costs.
        device: Where it computes.
        workload: What a process does in an epoch.
        rows: Of each kind of pass.
        one_pass: Whether sampling computes the first update's gradients.
        measured: Seconds of a pass of those rows by kind, where they were measured.
    """

    architecture: Architecture
    device: Device
    workload: Workload
    rows: Rows
    one_pass: bool
    measured: Mapping[str, float] = field(default_factory=dict)

    def prediction(self) -> Prediction:
        """Returns the memory by part and the seconds by phase."""
        on_cpu = self.device.kind == "cpu"
        device, host = self.on_device(), self.on_host()
        return Prediction(
            self.device,
            self.rows,
            self.one_pass,
            {**host, **device} if on_cpu else device,
            {} if on_cpu else host,
            {name: value for name, value in self.phases().items() if value},
        )

    def on_device(self) -> dict[str, float]:
        """Returns bytes by part where the networks are."""
        model, work = self.architecture, self.workload
        weights = dict(model.weights)
        if self.device.kind == "gpu":  # the text encoder is there for the time of its use
            weights.pop("text encoder", None)
        if work.loads_twice:
            weights["pretrained network"] = weights["network"]
        slack = CPU_SLACK if self.device.kind == "cpu" else GPU_SLACK
        found = {f"weights: {name}": float(value) for name, value in weights.items()}
        found["training: gradients, Adam"] = float(model.optimizer_bytes)
        found["activations"] = self.activation_bytes() * self.device.cores * slack
        if self.device.kind == "gpu":
            found["driver and libraries"] = CONTEXT_BYTES
        return found

    def activation_bytes(self) -> float:
        """Returns the bytes of activations of one lane, in the largest kind of pass."""
        model, rows = self.architecture, self.rows
        training, sampling = model.training_bytes(), model.sampling_bytes
        with_gradients = training if self.one_pass else sampling
        return max(
            training * (rows.training or 1),
            with_gradients * (rows.sampling or 1),
            model.decoding_bytes * (rows.decoding or 1),
        )

    def on_host(self) -> dict[str, float]:
        """Returns bytes by part in the main memory."""
        model, work = self.architecture, self.workload
        states = work.num_steps + 1 if work.keeps_states else 1
        samples = work.samples * (states * model.latent_numbers + model.sample_numbers)
        looked = work.evaluated * (
            (work.evaluated_steps + 1) * model.latent_numbers + model.sample_numbers
        )
        embedded = (work.texts + 1) * model.embedding_numbers * FULL
        found = {
            "process": PROCESS_BYTES + PAGE_BYTES + LANE_BYTES * self.device.cores,
            "samples and trajectories": float((samples + looked) * FULL),
            "text embeddings": float(min(embedded, MOST_EMBEDDING_BYTES)),
        }
        if self.one_pass:
            found["gradients of each sample"] = float(gradient_bytes(model, work))
        if self.device.kind == "gpu" and "text encoder" in model.weights:
            found["weights: text encoder"] = float(model.weights["text encoder"])
        return found

    def phases(self) -> dict[str, float]:
        """Returns the seconds of an epoch by phase."""
        return {
            "sampling": self.sampling_seconds(),
            "decoding": self.decoding_seconds(self.workload.samples),
            "training": self.training_seconds(),
            "evaluation": self.evaluation_seconds() * self.workload.evaluated_share,
        }

    def sampling_seconds(self) -> float:
        """Returns the seconds of all steps; with one pass, those of the scores too."""
        work = self.workload
        steps = work.samples * work.num_steps
        scored = self._scored_rows() if self.one_pass else 0
        size = self.rows.sampling or 1
        return self._passes("sampling", steps - scored, size) + self._passes(
            "training", scored, size
        )

    def decoding_seconds(self, samples: float) -> float:
        """Returns the seconds of decoding so many samples, and of encoding them again if need
        be.
        """
        times = 2 if self.workload.encodes else 1
        return times * self._passes("decoding", samples, self.rows.decoding or 1)

    def training_seconds(self) -> float:
        """Returns the seconds of the updates, without rows that sampling computed."""
        work = self.workload
        rows = work.samples * work.trained_share * work.trained_steps * work.inner_epochs
        if self.one_pass:
            rows -= self._scored_rows()
        found = self._passes("training", rows, self.rows.training or 1)
        if work.references:
            found += self._passes("sampling", rows, self.rows.training or 1)
        return found

    def evaluation_seconds(self) -> float:
        """Returns the seconds of one evaluation, without its rewards."""
        work = self.workload
        compared = min(REFERENCE_WAYS, work.evaluated) if work.measures_kl else 0
        steps = work.evaluated * work.evaluated_steps + compared * work.num_steps
        return self._passes("sampling", steps, self.rows.sampling or 1) + self.decoding_seconds(
            work.evaluated
        )

    def pass_work(self, kind: str, rows: float) -> Work:
        """Returns the work of a pass; kind: sampling, decoding or training."""
        work: Work = getattr(self.architecture, kind)(rows)
        return work

    def _scored_rows(self) -> float:
        return self.workload.first_update_samples * self.workload.trained_steps

    def _passes(self, kind: str, number: float, size: int) -> float:
        """Returns the seconds of all lanes together for so many rows in passes of a size."""
        if number <= 0:
            return 0.0
        passes = max(ceil(number / size), 1)
        one = self.measured.get(kind) or self.device.seconds(
            self.pass_work(kind, number / passes), self.architecture.precision
        )
        return one * passes / min(self.device.cores, passes)


def cures(costs: Costs, prediction: Prediction) -> list[str]:
    """Returns options that would let a run fit that does not; rows are already fewest."""
    model, found = costs.architecture, []
    if model.trains_all:
        found.append("--model.train lora")
    if model.precision == "fp32" and not model.trains_all and costs.device.kind == "gpu":
        found.append("--model.precision bf16")
    activations = costs.activation_bytes()
    if not model.is_checkpointed and model.training_bytes(checkpointed=True) < activations / 2:
        found.append("--model.gradient-checkpointing true")
    if prediction.memory.get("activations", 0) > prediction.bytes / 4:
        found.append("a smaller --model.size-pixels")
    found.append(f"a device with {ceil(prediction.bytes / (GPU_SHARE + 0.15) / GIB)} GB of memory")
    return found
