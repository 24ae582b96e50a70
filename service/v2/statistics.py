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
        inference_count=metrics.count("precision_images", pool.variant),
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
    succeeded = metrics.count("precision_requests", variant, "ok")
    ended, whole = metrics.total("precision_request_duration_seconds", variant)
    failed = metrics.failed_seconds[variant]
    phases = {
        word: duration(*metrics.total("precision_phase_duration_seconds", variant, phase))
        for word, phase in PHASES.items()
    }
    return InferenceStatistics(
        success=duration(succeeded, whole - failed), fail=duration(ended - succeeded, failed), **phases
    )


def duration(count: int, seconds: float) -> Duration:
    """Return a count and its cumulative time in the protocol's form."""
    return Duration(count=count, ns=round(seconds * 1e9))
