"""The oracle: torchvision's network in FP32 on the CPU, not folded, not fused. It shares no code with the engines."""

import io
import json
from dataclasses import asdict

import numpy as np
import torch

from models import cifar10, preprocess
from models.card import Card
from models.checkpoint import State
from models.files import CheckpointError
from models.resnet import resnet18
from models.topology import detect


@torch.inference_mode()
def packed_logits(state: State, card: Card, images: cifar10.Images) -> bytes:
    """Return a .npz with the oracle's logits on `[N, 3, 32, 32] uint8` images, and the checkpoint's SHA-256."""
    try:
        stem = detect({name: tuple(array.shape) for name, array in state.items()})
    except ValueError as error:
        raise CheckpointError(f"the checkpoint does not fit: {error}") from error
    inputs = card.input_for(stem)
    net = resnet18(stem).eval()
    net.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=False)
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (inputs.mean, inputs.std))
    pixels = torch.from_numpy(preprocess.resized(images, inputs.side))
    logits = torch.cat([net((batch.float() - mean) / std) for batch in pixels.split(50)]).numpy()
    content = io.BytesIO()
    of = json.dumps(asdict(inputs))
    np.savez_compressed(content, logits=logits, checkpoint_sha256=np.array(card.sha256), input=np.array(of))
    return content.getvalue()
