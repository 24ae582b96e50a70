"""The builder of the half precision variants on the CPU, for functional tests."""

import torch

from models import checkpoint
from models.engines import floating
from models.engines.building import Order, Origin, Resident, describe
from models.engines.cpu import CpuEngine
from models.engines.network import fold
from models.engines.tensors import array_function


def build(order: Order) -> CpuEngine:
    """Build a half precision variant on torch's operators, which are slow on most CPUs."""
    torch.set_num_threads(order.threads)
    state, card = checkpoint.load(order.path, order.preparation)
    network = fold(state, card)
    dtype = floating.DTYPES[order.variant.dtype]
    function = array_function(floating.eager(network, torch.device("cpu"), dtype))
    origin = Origin(card, checkpoint.half_precision_bytes(state))
    info = describe(order, network, origin, Resident(function.parameter_bytes), "eager")
    return CpuEngine(order.variant, info, function)
