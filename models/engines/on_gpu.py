"""The builder of every variant that runs on a GPU."""

import torch

from models import checkpoint, measure_torch
from models.engines import gpu_layers
from models.engines.building import Order, Origin, Resident, describe
from models.engines.device import Gpu, notes
from models.engines.floating import DTYPES
from models.engines.gpu import CudaEngine
from models.engines.graphs import CudaStream
from models.engines.network import fold


def build(order: Order) -> CudaEngine:
    """Build a floating-point variant on the order's GPU and backend."""
    variant, gpu = order.variant, order.gpu
    assert isinstance(gpu, Gpu)
    state, card = checkpoint.load(order.path, order.preparation)
    torch.set_num_threads(order.threads)
    device = torch.device(gpu.device)
    network, dtype = fold(state, card), DTYPES[variant.dtype]
    backend, (forward, weights) = gpu_layers.build(order.gpu_backend, network, device, dtype)
    size = card.bytes if dtype is torch.float32 else checkpoint.half_precision_bytes(state)
    resident = Resident(measure_torch.nbytes(weights))
    info = describe(order, network, Origin(card, size), resident, backend, *notes(variant, gpu))
    return CudaEngine(variant, info, forward, CudaStream(device, tf32=variant.dtype == "tf32"))
