"""The JSON of an answer is written without its model, and is what the model would write."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from service import schemas
from service.answers import predict_json
from service.executed import Executed
from service.phases import Phases
from service.prediction import Prediction
from tests.service import fakes

LOGITS = np.array([[0.5, -90.0, 7.25, 7.25, -1e-6], [1e3, 0.0, -1e3, 3.0, 2.0]], np.float32)
"""Probabilities from 0 over tiny ones to 1, and two of the same size."""


def answer(**query: Any) -> bytes:
    """Return the JSON for LOGITS."""
    labels = SimpleNamespace(labels=("a", "b", "c", "d", "e"))
    prediction = SimpleNamespace(service=SimpleNamespace(checkpoint=labels), began=0.0, id="photo-17")
    phases = Phases(1e-7, 0.0002, 0.3, 0.0, 0.0021, 0.0, 123456.789)
    executed = Executed("int8", fakes.worker_info(), LOGITS, 4, 1 << 40, phases, (), 0.0)
    return predict_json(cast("Prediction", prediction), executed, schemas.PredictQuery(**query))


@pytest.mark.parametrize("query", [{}, {"top_k": 3}, {"top_k": 5, "logits": True}], ids=str)
def test_the_bytes_are_those_of_the_model(query: dict[str, Any]) -> None:
    """Every field is there, in the model's order, with the model's way to write numbers."""
    body = answer(**query)
    assert schemas.PredictResponse.model_validate_json(body).model_dump_json(exclude_none=True).encode() == body


def test_classes_stand_by_falling_probability() -> None:
    """Of two classes that are equally probable the first one of the network stands first."""
    first, second = schemas.PredictResponse.model_validate_json(answer(top_k=5)).predictions
    assert [candidate.label for candidate in first.top_k] == ["c", "d", "a", "e", "b"]
    assert (first.label, first.class_index, first.logits) == ("c", 2, None)
    assert (second.label, second.probability) == ("a", 1.0)


def test_one_class_is_the_first_of_several() -> None:
    """An answer with one class has the label and the probability that an answer with five has first."""
    one, five = (schemas.PredictResponse.model_validate_json(answer(top_k=k)).predictions for k in (1, 5))
    assert [row.top_k for row in one] == [row.top_k[:1] for row in five]
    assert [(row.label, row.probability) for row in one] == [(row.label, row.probability) for row in five]
