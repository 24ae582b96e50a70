"""Logits to the JSON documents of /predict and /compare."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from service import schemas
from service.executed import Executed
from service.phases import Phases
from service.prediction import Prediction

SECONDS = {name: f"{name}_seconds" for name in Phases._fields}
"""Phase -> its field of `timing`."""
JSON: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
"""Writes numbers as the models do."""


def predict_response(
    prediction: Prediction, executed: Executed, query: schemas.PredictQuery
) -> schemas.PredictResponse:
    """Return the document for one variant's answer."""
    return schemas.PredictResponse.model_validate_json(predict_json(prediction, executed, query))


def predict_json(prediction: Prediction, executed: Executed, query: schemas.PredictQuery) -> bytes:
    """Return the JSON of `predict_response`. It is written without the model, whose objects take most of the time."""
    timing = {SECONDS[name]: seconds for name, seconds in executed.phases.reached().items()}
    timing["total_seconds"] = time.perf_counter() - prediction.began
    document = {
        "variant": executed.variant,
        "device": executed.info.device,
        "predictions": _predictions(executed.logits, prediction.service.checkpoint.labels, query),
        "batch_size": executed.batch_size,
        "timing": timing,
        "memory": {"peak_bytes": executed.memory_bytes, "kind": executed.info.memory_kind},
        "request_id": prediction.id,
    }
    return JSON.dump_json(document)


def _predictions(
    logits: NDArray[np.float32], classes: Sequence[str], query: schemas.PredictQuery
) -> list[dict[str, Any]]:
    """Return the answer for each row of `[N, classes] float32` logits, classes by falling probability."""
    # numpy's methods `max` and `sum` take twice as long for a few numbers as the functions that they call
    shifted = np.exp(logits - np.maximum.reduce(logits, axis=1, keepdims=True))
    probabilities = shifted / np.add.reduce(shifted, axis=1, keepdims=True)
    if query.top_k == 1:  # most requests; it spares them the sorting and every other probability
        first = logits.argmax(1)
        chosen = zip(first.tolist(), probabilities[np.arange(len(first)), first].tolist(), strict=True)
        tops = [[{"label": classes[i], "class_index": i, "probability": share}] for i, share in chosen]
    else:
        order = np.argsort(-logits, axis=1, kind="stable")[:, : query.top_k]
        rows = zip(probabilities.tolist(), order.tolist(), strict=True)
        tops = [[{"label": classes[i], "class_index": i, "probability": row[i]} for i in best] for row, best in rows]
    answers = [{**top[0], "top_k": top} for top in tops]
    if query.logits:
        for answer, values in zip(answers, logits.tolist(), strict=True):
            answer["logits"] = values
    return answers
