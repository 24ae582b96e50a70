"""The table of the service's metrics: names, labels, help texts, buckets. docs/metrics.md explains each."""

from dataclasses import dataclass
from typing import Literal

from service.errors import REASONS
from service.phases import Phases
from service.workers.death import CAUSES
from service.workers.status import State

PHASES = Phases._fields
OUTCOMES = ("ok", *REASONS)
STATES = tuple(State)

SECONDS = (
    0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05,
    0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
BYTES = tuple(float(2**power) for power in range(14, 35, 2))
DISTANCES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Row:
    """One metric. `name` has no `_total`; `values` are all values of the last label, where they are known at the start.

    Each of these values has a series from the start, because a rate over a series that appears with its first event
    misses that event.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    labels: tuple[str, ...]
    help: str
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exposed_name(self) -> str:
        """The name in the exposition."""
        return self.name + ("_total" if self.kind == "counter" else "")


V = ("variant",)
ROWS = (
    Row(
        "counter", "precision_requests", (*V, "outcome"), "HTTP predictions that ended, each once, by outcome.",
        OUTCOMES,
    ),
    Row(
        "counter", "precision_compare_requests", ("outcome",), "Comparisons that ended, each once, by outcome.",
        OUTCOMES,
    ),
    Row(
        "histogram", "precision_request_duration_seconds", V,
        "Time from the headers of a prediction to its answer.", buckets=SECONDS,
    ),
    Row(
        "histogram", "precision_phase_duration_seconds", (*V, "phase"),
        "Parts of the request duration of answered predictions; `other` is the time outside all other phases.",
        PHASES, SECONDS,
    ),
    Row(
        "histogram", "precision_inference_duration_seconds", (*V, "device"),
        "Device-synchronised forward pass of the batch that a request was in, once per request.", buckets=SECONDS,
    ),
    Row(
        "histogram", "precision_inference_memory_bytes", (*V, "device", "kind"),
        "Memory that the executed batch, all its requests together, needed beyond the resident weights, once per "
        "request. activation_peak: measured once per batch size at warm-up, a lower bound: memory that earlier "
        "batches left for reuse is not counted; cuda_graph: the graph that ran, measured when it was captured, an "
        "upper bound: the batch was padded to its size.", buckets=BYTES,
    ),
    Row("histogram", "precision_batch_size", V, "Images per executed batch.", buckets=IMAGES),
    Row("counter", "precision_images", V, "Images predicted."),
    Row("counter", "precision_worker_busy_seconds", V, "Time that workers spent on executed batches."),
    Row("gauge", "precision_requests_in_flight", V, "Predictions that are handled now."),
    Row("gauge", "precision_queue_depth", V, "Images that wait for a batch now."),
    Row(
        "gauge", "precision_model_bytes", (*V, "kind"), "Model size: the file, and resident parameters and buffers."
    ),
    Row(
        "gauge", "precision_variant_info", (*V, "device", "dtype", "backend", "checkpoint", "torch", "isa"),
        "The engine that runs on each device; always 1.",
    ),
    Row("gauge", "precision_variant_ready", V, "1 if the variant answers, else 0."),
    Row(
        "gauge", "precision_variant_state", (*V, "state"), "1 for the variant's current state, 0 for the others.",
        STATES,
    ),
    Row("gauge", "precision_workers", (*V, "state"), "Workers of the variant that are in the state now.", STATES),
    Row(
        "gauge", "precision_load_seconds", V,
        "Time to read and prepare the weights at the last start, the slowest worker's.",
    ),
    Row(
        "gauge", "precision_warmup_seconds", V,
        "Time to run every batch size and the self-test at the last start, the slowest worker's.",
    ),
    Row(
        "gauge", "precision_selftest_agreement_ratio", V,
        "Share of the sample's images with the fp32 reference's answer at the last start, the worst worker's.",
    ),
    Row(
        "gauge", "precision_sample_accuracy_ratio", V,
        "Top-1 accuracy on the sample's labelled images at the last start, the worst worker's. Absent without labels.",
    ),
    Row(
        "gauge", "precision_sample_accuracy_suspect", V,
        "1 if that accuracy is near chance or far below the claim of the checkpoint's card, else 0. Absent without "
        "labels.",
    ),
    Row(
        "gauge", "precision_activation_peak_bytes", (*V, "batch_size"),
        "Memory that a batch of this size needs beyond the resident weights, measured at warm-up. On a GPU it is an "
        "upper bound: the memory of the graph that the batch is padded to.",
    ),
    Row(
        "gauge", "precision_inference_clock_ratio", (*V, "device"),
        "CUDA events over the synchronised wall clock for whole batches at the last start; on a GPU only.",
    ),
    Row(
        "counter", "precision_shadow_agreement", (*V, "agree"),
        "Images also run through fp32, by whether both named the same class.", ("true", "false"),
    ),
    Row(
        "histogram", "precision_shadow_logit_distance", V,
        "Largest |logit - fp32's logit| of an image also run through fp32.", buckets=DISTANCES,
    ),
    Row(
        "counter", "precision_shadow_dropped", V,
        "Requests chosen to be run through fp32 too, and dropped because its worker was busy.",
    ),
    Row(
        "counter", "precision_worker_restarts", (*V, "reason"), "Workers lost and started again.",
        ("died", "hung", "device_lost"),
    ),
    Row(
        "counter", "precision_worker_deaths", (*V, "cause"),
        "Workers that ended by themselves, by signal; exit: with a status; out_of_memory: the kernel killed it because "
        "its cgroup was out of memory.", CAUSES,
    ),
    Row(
        "gauge", "precision_worker_death_bytes", (*V, "cause", "kind"),
        "Memory at the last such death. resident: the worker's largest resident size, read up to a second before; "
        "limit: the memory limit of the cgroup, if there is one.",
    ),
)  # fmt: skip
MEMORY = Row(
    "gauge",
    "precision_memory_bytes",
    (*V, "kind"),
    "Memory of all worker processes of the variant now. rss counts shared pages in full, an upper bound; pss splits "
    "them among the processes that share them, an amortised share. On a GPU, allocated and reserved are PyTorch's "
    "numbers, the latter with its free blocks; process_gpu is the driver's number for the process, CUDA context "
    "included; device_used is the memory that all processes use on the device: do not add it up.",
)
"""The one metric without a fixed set of series: a worker that ended has none."""
DROPPED = Row("counter", "precision_log_lines_dropped", (), "Log lines of the HTTP process that could not be written.")
"""The one metric without a label."""
