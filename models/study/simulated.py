"""The network with simulated rounding, for training: learned steps (LSQ, Esser et al., 2020), BatchNorm folded in.

Its arithmetic is that of the INT8 graph: `network` turns the trained weights into integers that give the same logits.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.calibrate import Range
from models.engines import quantized
from models.engines.network import FoldedLayer, assemble, mean_and_scale
from models.engines.quantized import QuantizedLayer
from models.study import rounding
from models.study.recipes import Recipe
from models.topology import Network


class Rounding(torch.autograd.Function):
    """Rounding and clipping to `low` ... `high` steps, with LSQ's gradients: straight through, and one for the step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        """Return the rounded values; `step` broadcasts to `x`."""
        scaled = x / step
        rounded = scaled.round().clamp_(low, high).mul_(step)
        ctx.save_for_backward(scaled, step, rounded)
        ctx.limits = low, high
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Return the gradients of `x` and `step`; the latter is scaled as in LSQ, by 1 / sqrt(values * high)."""
        (gradient,), (scaled, step, rounded), (low, high) = gradients, ctx.saved_tensors, ctx.limits
        passed = gradient * (scaled == scaled.clamp(low, high))
        # the step's gradient: rounded integer less what was rounded; where it was clipped, the integer alone
        sums = (gradient * rounded).sum_to_size(step.shape) / step - (passed * scaled).sum_to_size(step.shape)
        values = scaled[0].numel() if step.ndim else scaled.numel() // len(scaled)
        return passed, sums * (values * max(high, 1)) ** -0.5, None, None


class SimulatedLayer(nn.Module):
    """A convolution or the linear layer, its weights and its output rounded."""

    def __init__(self, layer: FoldedLayer, source: Network[FoldedLayer], rounds: bool) -> None:
        super().__init__()
        self.spec, self.is_stem, self.rounds = layer.spec, layer is source.stem, rounds
        self.weight = nn.Parameter(torch.from_numpy(layer.weight.copy()))
        self.bias = nn.Parameter(torch.from_numpy(layer.bias.copy()))
        pixel_scale = torch.from_numpy(mean_and_scale(source.input)[1].copy()) if self.is_stem else torch.ones(())
        self.pixel_scale = nn.Buffer(pixel_scale)
        """Of the normalisation: the stem's integers are for pixels of 0 to 255."""
        self.most = self.low = self.high = 0

    def prepare(self, scale: Tensor, most: int, step: float, offset: int, levels: int) -> None:
        """Set the steps to begin with: of weights, `[out]`, and of the output. Their logarithms are learnt.

        Steps differ by orders of magnitude between layers and bits; equal changes of logarithms suit them all.
        """
        self.most, self.low, self.high = most, -offset, levels - 1 - offset
        self.log_weight_step = nn.Parameter(scale.reshape(-1, *[1] * (self.weight.ndim - 1)).log())
        self.log_step = nn.Parameter(torch.tensor(step or 1.0).log())

    def rounded_weight(self) -> Tensor:
        """Return the weight in real units."""
        if not self.rounds:
            return self.weight
        scaled = self.weight * self.pixel_scale
        rounded: Tensor = Rounding.apply(scaled, self.log_weight_step.exp(), -self.most, self.most)
        return rounded / self.pixel_scale

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Return the output of the layer, an addition and a ReLU included."""
        if self.spec.name == "fc":
            return F.linear(x, self.rounded_weight(), self.bias)
        y = F.conv2d(x, self.rounded_weight(), self.bias, self.spec.stride, self.spec.shape[2] // 2)
        y = y if added is None else y + added
        if not self.rounds:
            return F.relu(y) if self.spec.relu or added is not None else y
        # The lower limit of a rounded output that cannot be negative is 0, which makes it a ReLU.
        rounded: Tensor = Rounding.apply(y.float(), self.log_step.exp(), self.low, self.high)
        return rounded


class Simulated(nn.Module):
    """The whole network: `[N, 3, S, S] float32, normalised` to `[N, classes]` logits. `rounds=False` is plain FP32.

    With `bfloat16` convolutions read numbers rounded to bfloat16, for speed; sums, steps and the head stay in FP32.
    """

    def __init__(self, source: Network[FoldedLayer], *, rounds: bool, bfloat16: bool = False) -> None:
        super().__init__()
        self.source, self.in_bfloat16 = source, bfloat16
        self.layers = source.map(lambda layer: SimulatedLayer(layer, source, rounds))
        self.parts = nn.ModuleList(self.layers)
        plain: Callable[[SimulatedLayer], Callable[[Tensor], Tensor]] = lambda layer: layer  # noqa: E731
        residual: Callable[[SimulatedLayer], Callable[[Tensor, Tensor], Tensor]] = lambda layer: layer  # noqa: E731
        self.features = assemble(self.layers, plain, residual, lambda x: F.max_pool2d(x, 3, 2, 1))

    def prepare(self, recipe: Recipe, ranges: Mapping[str, Range]) -> "Simulated":
        """Set every step to begin with from the recipe and calibrated ranges; return the network."""
        integers = {layer.spec.name: rounding.nearest(layer, self.source, recipe) for layer in self.source}
        begun = rounding.assembled(self.source, integers, ranges, recipe.activation_bits)
        for folded, layer, start in zip(self.source, self.layers, begun, strict=True):
            most = rounding.limit(rounding.weight_bits(recipe, folded, self.source))
            scale = torch.from_numpy(integers[folded.spec.name].scale)
            layer.prepare(scale, most, start.output_scale, start.offset, start.levels)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            last: Tensor = self.features(x)
        logits: Tensor = self.layers.head(last.float().mean((2, 3)))
        return logits

    @torch.no_grad()
    def network(self) -> Network[QuantizedLayer]:
        """Return the network as integers."""
        return self.layers.map(self._integers)

    def _integers(self, layer: SimulatedLayer) -> QuantizedLayer:
        step = layer.log_weight_step.exp()
        integers = (layer.weight * layer.pixel_scale / step).round().clamp(-layer.most, layer.most)
        weight = integers.to(torch.int8).cpu().contiguous().numpy()
        scale, bias = step.flatten().cpu().numpy().copy(), layer.bias.detach().cpu().numpy().copy()
        if layer.is_stem:
            weight, bias = quantized.framed(weight, scale, bias, self.source.input)
        is_head = layer.spec.name == "fc"
        output = 0.0 if is_head else float(layer.log_step.exp())
        return QuantizedLayer(layer.spec, weight, scale, bias, output, -layer.low, layer.high - layer.low + 1)
