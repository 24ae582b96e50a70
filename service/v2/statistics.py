"""Triton's statistics extension, computed from the metrics and the pool, so that both show the same numbers."""

from service.metrics import Metrics
from service.v2.documents import BatchStatistics, Duration, InferenceStatistics, ModelStatistics
from service.workers.pool import Pool

PHASES = {"queue": "queue", "compute_input": "copy_in", "compute_infer": "inference", "compute_output": "copy_out"}
"""Triton's word -> the phase of `precision_phase_duration_seconds`."""


def statistics(pool: Pool, metrics: Metrics, name: str, version: str) -> ModelStatistics:
    """Return the statistics of a variant, which the protocol knows by this name and version."""
    return ModelStatistics(
        name=name,
        version=version,
        last_inference=int(pool.last_executed * 1000),
        inference_count=int(metrics.value("precision_images_total", variant=pool.variant)),
        execution_count=sum(size.batches for size in pool.executions.values()),
        inference_stats=_inference(metrics, pool.variant),
        batch_stats=[
            BatchStatistics(
                batch_size=images,
                compute_input=duration(size.batches, size.copy_in),
                compute_infer=duration(size.batches, size.inference),
                compute_output=duration(size.batches, size.copy_out),
            )
            for images, size in sorted(pool.executions.items())
        ],
    )


def _inference(metrics: Metrics, variant: str) -> InferenceStatistics:
    """Return the times of a variant's requests. Phases are known of answered requests only."""
    requests = metrics.values("precision_requests_total", "outcome", variant)
    counts = metrics.values("precision_phase_duration_seconds_count", "phase", variant)
    seconds = metrics.values("precision_phase_duration_seconds_sum", "phase", variant)
    succeeded, failed = requests.pop("ok"), metrics.failed_seconds[variant]
    whole = metrics.value("precision_request_duration_seconds_sum", variant=variant)
    return InferenceStatistics(
        success=duration(succeeded, whole - failed),
        fail=duration(sum(requests.values()), failed),
        **{word: duration(counts[phase], seconds[phase]) for word, phase in PHASES.items()},
    )


def duration(count: float, seconds: float) -> Duration:
    """Return a count and its cumulative time in the protocol's form."""
    return Duration(count=int(count), ns=round(seconds * 1e9))
