"""The INT8 network of OpenVINO as a model of MLServer, a peer of `benchmarks.startup`. It has its own environment."""

from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.runtimes import openvino_int8
from common import machine


class Int8(MLModel):  # type: ignore[misc]
    """A model that takes one tensor `[N, 3, 32, 32] uint8` and gives logits `[N, 10] float32`."""

    async def load(self) -> bool:
        """Load the network that lies beside the settings of the model."""
        folder = Path(self.settings.parameters.uri)
        self.network = openvino_int8(machine.available_cores(), folder)(-1)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the logits."""
        logits = self.network(NumpyCodec.decode_input(payload.inputs[0]))
        output = NumpyCodec.encode_output("logits", logits)
        return InferenceResponse(model_name=self.name, outputs=[output])
