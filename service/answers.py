"""Logits to the JSON documents of /predict and /compare."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service import schemas
from service.executed import Executed
from service.prediction import Prediction


def predict_response(
    prediction: Prediction, executed: Executed, query: schemas.PredictQuery
) -> schemas.PredictResponse:
    """Return the document for one variant's answer."""
    return schemas.PredictResponse(
        variant=executed.variant,
        device=executed.info.device,
        predictions=predictions_of(executed.logits, prediction.service.checkpoint.labels, query),
        batch_size=executed.batch_size,
        timing=schemas.Timing(
            **{f"{name}_seconds": seconds for name, seconds in executed.phases.reached().items()},
            total_seconds=time.perf_counter() - prediction.began,
        ),
        memory=schemas.Memory(peak_bytes=executed.memory_bytes, kind=executed.info.memory_kind),
        request_id=prediction.id,
    )


def predictions_of(
    logits: NDArray[np.float32], classes: Sequence[str], query: schemas.PredictQuery
) -> list[schemas.Prediction]:
    """Return the answer for each row of `[N, classes] float32` logits, classes by falling probability."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    order = np.argsort(-logits, axis=1, kind="stable")[:, : query.top_k]
    return [
        _prediction(classes, row, best, values if query.logits else None)
        for row, best, values in zip(probabilities.tolist(), order.tolist(), logits.tolist(), strict=True)
    ]


def _prediction(
    classes: Sequence[str], probabilities: list[float], best: list[int], logits: list[float] | None
) -> schemas.Prediction:
    candidates = [schemas.Candidate(label=classes[i], class_index=i, probability=probabilities[i]) for i in best]
    top = candidates[0]
    return schemas.Prediction(
        label=top.label, class_index=top.class_index, probability=top.probability, top_k=candidates, logits=logits
    )
