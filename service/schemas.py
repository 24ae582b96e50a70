"""What goes over HTTP as JSON."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator


class JSONBody(BaseModel):
    """`{"image": "<base64>"}` or `{"images": ["<base64>", ...]}`."""

    EXPECTED: ClassVar[str] = '{"image": "<base64>"} or {"images": ["<base64>", ...]}'
    model_config = ConfigDict(extra="forbid")

    image: str | None = Field(None, description="one PNG, JPEG or WebP image, base64")
    images: Annotated[list[str], Field(min_length=1)] | None = Field(None, description="several images, base64")

    @model_validator(mode="after")
    def _exactly_one(self) -> "JSONBody":
        if (self.image is None) == (self.images is None):
            raise ValueError("give exactly one of `image` and `images`")
        return self

    def all_images(self) -> list[str]:
        return self.images if self.images is not None else [self.image or ""]


class Candidate(BaseModel):
    label: str
    class_index: int
    probability: float


class Prediction(Candidate):
    top_k: list[Candidate] = Field(description="the most probable classes, best first")
    logits: list[float] | None = Field(None, description="ten logits, when asked for with `logits=true`")


class Timing(BaseModel):
    """Seconds of this request; `inference_seconds` is device-synchronised."""

    receive_seconds: float = Field(description="reading the body")
    decode_seconds: float = Field(description="body to 32x32 pixels")
    queue_seconds: float = Field(description="from queued to the start of the batch, the way to the worker included")
    copy_in_seconds: float = Field(description="pixels to the device")
    inference_seconds: float = Field(description="the forward pass of the batch, device-synchronised")
    copy_out_seconds: float = Field(description="logits to the host")
    total_seconds: float = Field(description="from the request's headers until this answer was put together")


class Memory(BaseModel):
    peak_bytes: int = Field(description="what the executed batch needed beyond the resident weights")
    kind: str = Field(description="activation_peak: measured once per batch size at warm-up; cuda_peak: of this batch")


class PredictResponse(BaseModel):
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
    agrees: list[bool] | None = Field(None, description="per image: same label as `fp32`")
    max_logit_difference: list[float] | None = Field(None, description="per image: largest |logit - fp32's logit|")


class CompareResponse(BaseModel):
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


class VariantCard(BaseModel):
    """A variant, its state, and, once it is ready, what it runs on and how large it is."""

    model_config = ConfigDict(extra="allow")

    name: str
    state: str = Field(description="starting, ready, failed or unavailable")
    reason: str
    dtype: str
    device: str | None = None
    backend: str
    reference: str | None = Field(None, description="the variant that this one is fairly held against")
    summary: str
    max_batch_size: int
    evaluation: dict[str, Any] | None = Field(
        None, description="accuracy, agreement with fp32, sizes and times, and what they were measured on"
    )


class Variants(BaseModel):
    """What is served, the card of its weights, and what the service runs on."""

    variants: list[VariantCard]
    checkpoint: dict[str, Any]
    service: dict[str, Any]
