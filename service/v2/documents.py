"""The JSON documents under `/v2`, spelled as the protocol and Triton's extensions spell them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.schemas import PIXEL, example

INPUT, OUTPUT = "images", "logits"
_DURATION = {"count": 1, "ns": 2_100_000}
Parameters = dict[str, Any]
ModelState = Literal["READY", "LOADING", "UNAVAILABLE"]


def version(digest: str) -> str:
    """Return a model's version: the first 48 bits of its checkpoint's SHA-256 as a decimal integer; `0` without one.

    Triton's versions are integers, and its clients parse them as such (perf_analyzer with `std::stoll`).
    """
    return str(int(digest[:12] or "0", 16))


class RequestInput(BaseModel):
    """The images: UINT8 `[N, 3, S, S]` pixels (S as the model's metadata says), or BYTES `[N]` encoded images.

    Encoded images are base64 where the data is JSON.
    """

    model_config = ConfigDict(strict=True)

    name: str
    shape: list[int] = Field(max_length=8)
    datatype: str
    parameters: Parameters = Field({}, description="`binary_data_size`: bytes of this tensor after the JSON")
    data: list[Any] | None = Field(None, description="numbers or base64 texts, nested or flat")


class OutputParameters(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    binary_data: bool | None = Field(None, description="true: as bytes after the JSON; wins over `binary_data_output`")
    classification: int = Field(
        0,
        ge=0,
        description="that many best classes as `value:index:label` texts instead of logits; at most all classes",
    )


class RequestedOutput(BaseModel):
    name: str
    parameters: OutputParameters = OutputParameters()


class InferParameters(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    binary_data_output: bool = Field(False, description="true: outputs as bytes after the JSON")
    timeout: int = Field(
        0, ge=0, le=2**63 - 1, description="deadline in microseconds, at most the service's own; 0: the service's own"
    )


class InferRequest(BaseModel):
    """An inference request; unknown parameters are ignored."""

    model_config = example(
        id="42",
        inputs=[{"name": INPUT, "shape": [1], "datatype": "BYTES", "data": [PIXEL]}],
        outputs=[{"name": OUTPUT}],
    )

    id: str | None = None
    parameters: InferParameters = InferParameters()
    inputs: list[RequestInput] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] = Field([], max_length=1, description="none: `logits`")


class ResponseOutput(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters | None = None
    data: list[float] | list[str] | None = None


class InferResponse(BaseModel):
    model_config = example(
        model_name="resnet18-int8",
        model_version="264577279579365",
        id="42",
        outputs=[{"name": OUTPUT, "datatype": "FP32", "shape": [1, 10], "data": [0.1] * 3 + [5.5] + [0.1] * 6}],
    )

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseOutput]


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    model_config = example(
        name="resnet18-int8",
        versions=["264577279579365"],
        platform="openvino",
        inputs=[{"name": INPUT, "datatype": "UINT8", "shape": [-1, 3, 32, 32]}],
        outputs=[{"name": OUTPUT, "datatype": "FP32", "shape": [-1, 10]}],
        properties={"checkpoint_sha256": "f0a1b2c3d4e5" + "0" * 52},
    )

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    properties: dict[str, str] = Field(description="`checkpoint_sha256`: the digest of the weights; empty until known")


class ServerMetadata(BaseModel):
    model_config = example(name="precision-service", version="0.1.0", extensions=["binary_tensor_data"])

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    model_config = example(live=True)

    live: bool


class Ready(BaseModel):
    model_config = example(ready=True)

    ready: bool


class ModelReady(BaseModel):
    model_config = example(name="resnet18-int8", ready=True)

    name: str
    ready: bool


class ConfigTensor(BaseModel):
    name: str
    data_type: str
    dims: list[int]


class ModelConfig(BaseModel):
    """The part of Triton's model configuration that clients read: batching, and tensors without a batch dimension."""

    model_config = example(
        name="resnet18-int8",
        platform="openvino",
        backend="openvino",
        max_batch_size=256,
        input=[{"name": INPUT, "data_type": "TYPE_UINT8", "dims": [3, 32, 32]}],
        output=[{"name": OUTPUT, "data_type": "TYPE_FP32", "dims": [10]}],
        dynamic_batching={"preferred_batch_size": [32]},
    )

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    dynamic_batching: dict[str, Any]


class IndexRequest(BaseModel):
    model_config = example(ready=True) | ConfigDict(strict=True)

    ready: bool = Field(False, description="true: only models that answer")


class IndexEntry(BaseModel):
    model_config = example(name="resnet18-int8", version="264577279579365", state="READY", reason="")

    name: str
    version: str
    state: ModelState
    reason: str


class Duration(BaseModel):
    count: int = 0
    ns: int = Field(0, description="cumulative nanoseconds")


class InferenceStatistics(BaseModel):
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class BatchStatistics(BaseModel):
    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(BaseModel):
    """Counts and times since the service started: the numbers of /metrics in Triton's words."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since 1970, 0 before the first")
    inference_count: int = Field(description="images answered")
    execution_count: int = Field(description="batches executed")
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class Statistics(BaseModel):
    model_config = example(
        model_stats=[
            {
                "name": "resnet18-int8",
                "version": "264577279579365",
                "last_inference": 1_790_000_000_000,
                "inference_count": 3,
                "execution_count": 1,
                "inference_stats": dict.fromkeys(InferenceStatistics.model_fields, _DURATION),
                "batch_stats": [
                    {
                        "batch_size": 3,
                        "compute_input": _DURATION,
                        "compute_infer": _DURATION,
                        "compute_output": _DURATION,
                    }
                ],
            }
        ]
    )

    model_stats: list[ModelStatistics]


class V2Error(BaseModel):
    """The body of every error under `/v2`."""

    error: str
