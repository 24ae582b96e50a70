"""INT8 networks as models of MLServer, a peer of the benchmarks. It has its own environment."""

import io
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from PIL import Image

from benchmarks.runtimes import openvino_int8
from common import machine
from models.loading import load


class Int8(MLModel):  # type: ignore[misc]
    """OpenVINO's own INT8 network: it takes one tensor `[N, 3, 32, 32] uint8` and gives logits `[N, 10] float32`."""

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


class Pictures(MLModel):  # type: ignore[misc]
    """This project's INT8 engine: it takes encoded images, BYTES `[N]`, and gives logits `[N, 10] float32`."""

    async def load(self) -> bool:
        """Load the engine with the bundled weights."""
        self.engine = load("int8")
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the logits."""
        parts = Base64Codec.decode_input(payload.inputs[0])
        pictures = [np.asarray(Image.open(io.BytesIO(part))) for part in parts]
        pixels = np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))
        output = NumpyCodec.encode_output("logits", self.engine.run(pixels).logits)
        return InferenceResponse(model_name=self.name, outputs=[output])
