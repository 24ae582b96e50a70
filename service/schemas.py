"""The documents that go over HTTP as JSON, and the query of a prediction."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from models.accuracy import SampleAccuracy
from models.variants import REFERENCE
from service.phases import DESCRIPTIONS, UNTOLD

_CANDIDATE = {"label": "cat", "class_index": 3, "probability": 0.97}
_ANSWER = {
    "variant": "int8",
    "device": "cpu",
    "predictions": [{**_CANDIDATE, "top_k": [_CANDIDATE]}],
    "batch_size": 4,
    "timing": {
        "receive_seconds": 0.0001,
        "decode_seconds": 0.0002,
        "queue_seconds": 0.0004,
        "copy_in_seconds": 0.0,
        "inference_seconds": 0.0021,
        "copy_out_seconds": 0.0,
        "deliver_seconds": 0.0002,
        "total_seconds": 0.0031,
    },
    "memory": {"peak_bytes": 1_048_576, "kind": "activation_peak"},
    "request_id": "photo-17",
}
_VARIANT = {
    "name": "fp16",
    "state": "unavailable",
    "reason": "needs a CUDA GPU, and this machine has none",
    "dtype": "float16",
    "backend": "cudnn",
    "reference": "fp32",
    "summary": "Half precision weights and activations on tensor cores.",
    "max_batch_size": 32,
}
"""A variant that this machine cannot run."""
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mOIAgAAXABbdTws1wAAAABJRU5ErkJggg=="
"""A whole PNG, base64: one grey pixel."""


def example(**fields: Any) -> ConfigDict:
    """Return the configuration of a model that shows this example in /openapi.json."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class JSONBody(BaseModel):
    """`{"image": "<base64>"}` or `{"images": ["<base64>", ...]}`."""

    EXPECTED: ClassVar[str] = '{"image": "<base64>"} or {"images": ["<base64>", ...]}'
    model_config = ConfigDict(extra="forbid") | example(image=PIXEL)

    image: str | None = Field(None, description="one PNG, JPEG or WebP image, base64")
    images: Annotated[list[str], Field(min_length=1, fail_fast=True)] | None = Field(
        None, description="several images, base64"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "JSONBody":
        if (self.image is None) == (self.images is None):
            raise ValueError("give exactly one of `image` and `images`")
        return self

    def all_images(self) -> list[str]:
        return self.images if self.images is not None else [self.image or ""]


class PredictQuery(BaseModel):
    """The query parameters of a prediction."""

    top_k: int = Field(1, ge=1, description="how many classes to name per image, at most the number of classes")
    logits: bool = Field(False, description="give the logits of each image, too, one per class")


class Candidate(BaseModel):
    label: str
    class_index: int
    probability: float


class Prediction(Candidate):
    top_k: list[Candidate] = Field(description="the most probable classes, best first")
    logits: list[float] | None = Field(None, description="one per class, when asked for with `logits=true`")


_FIELDS: dict[str, Any] = {
    f"{name}_seconds": (float, Field(description=text)) for name, text in DESCRIPTIONS.items() if name not in UNTOLD
}
_Phases: Any = create_model("_Phases", **_FIELDS)


class Timing(_Phases):
    """Seconds of this request; `inference_seconds` is device-synchronised."""

    total_seconds: float = Field(description="from the request's headers until this answer was put together")


class Memory(BaseModel):
    peak_bytes: int = Field(description="what the executed batch needed beyond the resident weights")
    kind: str = Field(description="activation_peak, cuda_graph: measured once per batch size at warm-up")


class PredictResponse(BaseModel):
    model_config = example(**_ANSWER)

    variant: str
    device: str
    predictions: list[Prediction]
    batch_size: int = Field(description="images in the executed batch, other requests' included")
    timing: Timing
    memory: Memory
    request_id: str


class Compared(BaseModel):
    """One variant's answer in a comparison, or why it has none."""

    error: str | None = None
    answer: PredictResponse | None = None
    agrees: list[bool] | None = Field(None, description=f"per image: same label as `{REFERENCE}`")
    max_logit_difference: list[float] | None = Field(
        None, description=f"per image: largest |logit - {REFERENCE}'s logit|"
    )


class CompareResponse(BaseModel):
    model_config = example(
        reference=REFERENCE,
        variants={
            "int8": {"answer": _ANSWER, "agrees": [True], "max_logit_difference": [0.12]},
            "fp16": {"error": "fp16 is unavailable: needs a CUDA GPU, and this machine has none"},
        },
        request_id="photo-17",
    )

    reference: str
    variants: dict[str, Compared]
    request_id: str


class Problem(BaseModel):
    """`application/problem+json`, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


class Readiness(BaseModel):
    """Each variant's state; ready when every variant that can run on this machine is, until the service stops."""

    model_config = example(
        ready=True, stopping=False, variants={"fp32": "ready", "fp16": "unavailable", "int8": "ready"}
    )

    ready: bool
    stopping: bool = Field(False, description="true: the service ends soon and still answers")
    variants: dict[str, str]


class VariantInfo(BaseModel):
    """A variant, its state, and, once it is ready, what it runs on and how large it is."""

    model_config = ConfigDict(extra="allow")

    name: str
    state: str = Field(description="starting, ready, failed or unavailable")
    reason: str
    dtype: str
    device: str | None = None
    backend: str
    reference: str | None = Field(None, description="the variant that this one is fairly compared with")
    summary: str
    max_batch_size: int
    architecture: str | None = None
    classes: list[str] | None = Field(None, description="the labels, in the order of the logits")
    sample: SampleAccuracy | None = Field(
        None, description="accuracy on labelled images at the start; `warning` says why it is suspect, if it is"
    )
    last_death: dict[str, Any] | None = Field(
        None, description="how a worker last died: cause, exit code, largest resident size, memory limit of the cgroup"
    )
    evaluation: dict[str, Any] | None = Field(
        None, description=f"accuracy, agreement with {REFERENCE}, sizes and times, and what they were measured on"
    )


class Variants(BaseModel):
    """The served variants, the card of their checkpoint, and the machine."""

    model_config = example(
        variants=[_VARIANT],
        checkpoint={"sha256": "f0a1...", "test_accuracy": 0.9},
        service={"version": "0.1.0", "cores": 2},
    )

    variants: list[VariantInfo]
    checkpoint: dict[str, Any]
    service: dict[str, Any]
