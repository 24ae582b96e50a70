"""The network in half precision: simulated on any CPU, with rounded weights and outputs and sums in FP32; or autocast.

Tensor cores and AVX512_BF16 compute like this. A CPU without such instructions emulates them far more slowly.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models import cifar10
from models.engines.network import FoldedLayer, assemble
from models.study import flows
from models.study.running import Forward
from models.study.simulated import Simulated
from models.topology import Network


def forward(network: Network[FoldedLayer], dtype: torch.dtype) -> Forward:
    """Return the network as a function, rounded to `dtype`, torch.float16 or torch.bfloat16."""

    def rounded(x: Tensor) -> Tensor:
        return x.to(dtype).float()

    class Layer:
        """A layer with rounded weights and output."""

        def __init__(self, layer: FoldedLayer) -> None:
            self.spec = layer.spec
            self.weight, self.bias = (rounded(torch.from_numpy(part)) for part in (layer.weight, layer.bias))

        def __call__(self, x: Tensor, added: Tensor | None = None) -> Tensor:
            y = F.conv2d(x, self.weight, self.bias, self.spec.stride, self.spec.shape[2] // 2)
            y = y if added is None else y + added
            return rounded(F.relu(y) if self.spec.relu or added is not None else y)

    layers = network.map(Layer)
    features = assemble(layers, lambda layer: layer, lambda layer: layer, lambda x: F.max_pool2d(x, 3, 2, 1))

    @torch.inference_mode()
    def run(pixels: cifar10.Images) -> NDArray[np.float32]:
        last = features(rounded(flows.start(network, pixels).exact))
        logits: NDArray[np.float32] = F.linear(rounded(last.mean((2, 3))), layers.head.weight, layers.head.bias).numpy()
        return logits

    return run


def autocast(network: Network[FoldedLayer], dtype: torch.dtype) -> Forward:
    """Return the network under torch's autocast on a GPU, channels-last: FP32 weights, convolutions in `dtype`."""
    net = Simulated(network, rounds=False).to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(pixels: cifar10.Images) -> NDArray[np.float32]:
        x = flows.start(network, pixels).exact.to("cuda")
        with torch.autocast("cuda", dtype):
            logits = net(x)
        array: NDArray[np.float32] = logits.float().cpu().numpy()
        return array

    return run
