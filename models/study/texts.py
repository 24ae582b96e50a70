"""The fixed parts of docs/quantization.md. Imports no torch."""

RECIPES = """\
The logit SQNR (signal to quantization noise) tells recipes apart that no test on 10,000 labels can: 6 dB more halve the
error of the logits. Latency is the median of a process that runs alone, with a thread for each core. Recipes of static
INT8 differ in their numbers only, so they share the graph, the latency and the memory of the variant `int8`. A network
that the study built lies in `runs/study/artifacts`; `python -m service --variants int8 --checkpoint FILE` serves it. It
refuses `int8-qat` and `w4a8-qat`: training with labels moves the logits so far that the self-test takes them for wrong.
"""

PICTURES = """\
The bars are the intervals of the paired difference from `fp32`: where they reach the dots of other recipes, the order
of the two is chance, on the Pareto front too. A triangle at the lower edge has lost more than the axis shows.
"""

CLAIMS = """\
The claims come from introductions to quantization, mostly without a source. They hold for the size. On speed they are
about a kernel that uses the format well: most CPUs have none for FP16, AVX512_FP16 alone need not be faster than FP32,
and this project has no kernel for 4 bits. On an NVIDIA H200 FP16 takes [4.9 times less time than FP32 for one image and
7.1 times less for 256](results/nvidia-h200.md), with other weights. The loss depends on the method as well as on the
bits: `w4a8-nearest` and `w4a8-adaround` have the same format.
"""

NUMERICS = """\
## The numbers

A real value is `scale * (integer - zero point)`. Weights are symmetric (zero point 0) with one scale for each output
channel: `scale = max |w| / 127` for 8 bits, `/ 7` for 4 bits, or the scale with the least squared error. BatchNorm is
folded into the weights first, in float64. An activation has one scale for the whole tensor. After a ReLU it is unsigned
from 0 to `levels - 1` with zero point 0; the output of a shortcut can be negative and has a zero point. The first layer
reads raw pixels, which are integers already. A product of weights and activations is summed in 32 bits, then multiplied
by `weight scale * input scale` of its channel, and bias, residual addition and ReLU follow in FP32 before the next
rounding. Rounding is to the nearest, ties to even; values outside of the range are clipped. In rows of 4 bits the first
and the last layer keep 8, as is usual in the literature.

With VNNI a CPU multiplies four pairs of u8 and s8 and adds them up in 32 bits in one instruction. Without VNNI
(`vpmaddubsw`) pairs of products are summed in 16 bits, which saturates: `2 * 255 * 127 > 32,767`. On such a CPU the
service uses weights of at most 64 (7 bits), and the study runs rows of 8-bit weights in FP32 on the rounded values, so
that accuracy is that of the recipe and not of the CPU. The row `int8-served` is what the service really answers on the
CPU of this page: with VNNI it equals `int8-least-squares`, without VNNI the distance between the two is the cost.

No kernel of this project multiplies weights of 4 bits on a CPU. Their rows say "no kernel" for the speed, and their
size is that of a file in which two weights share a byte. BF16 keeps the 8 bits of FP32's exponent and has 8 bits of
precision; FP16 has 5 and 11, and overflows above 65,504.
"""

METHODS = """\
## Methods

- Ranges: minimum and maximum, and moving averages of them over batches of 16 images with weight 0.1 for the new one
  ([Jacob et al., 2018](https://arxiv.org/abs/1712.05877)); the range without the outermost 0.01 % of values;
  least Kullback-Leibler divergence
  ([Migacz, 2017](https://www.cse.iitd.ac.in/~rijurekha/course/tensorrt.pdf)); least squared error
  ([Nagel et al., 2021](https://arxiv.org/abs/2106.08295)).
- Cross-layer equalization ([Nagel et al., 2019](https://arxiv.org/abs/1906.04721)) of the convolutions inside a block.
- Correction of the mean and the standard deviation of each channel
  ([Banner et al., 2019](https://arxiv.org/abs/1810.05723)), layer by layer on the calibration images. The mean alone is
  not enough with 4 bits: outputs shrink from layer to layer until the ReLUs cut everything off.
- AdaRound ([Nagel et al., 2020](https://arxiv.org/abs/2004.10568)) on windows at 8,192 random positions for each layer,
  from the input in the network that is quantized so far to the output in FP32.
- Quantization-aware training with learned steps, LSQ ([Esser et al., 2020](https://arxiv.org/abs/1902.08153)), from the
  trained weights with BatchNorm folded in; Adam with a cosine, crops and flips. Distillation
  ([Hinton et al., 2015](https://arxiv.org/abs/1503.02531)) from FP32 at temperature 2, without labels.
- Mixed precision: layers are ranked by the SQNR of the logits when only that layer is quantized; a bisection finds how
  many must be kept so that the whole interval of the paired difference lies above -0.1 points. `int8-bound` keeps
  layers in FP32, `w4a8-bound` chooses between the layers of `w4a8-adaround` and `int8-adaround`. The search looks at
  the test images, because the network was trained on all training images; its difference is a little optimistic.
- The check on the ranking: mean trace of the Hessian (Hutchinson) times the squared error of the weights, HAWQ-V2
  ([Dong et al., 2020](https://arxiv.org/abs/1911.03852)).
- Intervals and tests as in [the evaluation](results/evaluation-cpu.md): Bonett and Price for paired differences, Wilson
  for shares, McNemar's exact p.

`python -m models.study.layers fp32 int8` compares weights and outputs of two variants, checkpoints or artifacts layer
by layer, and names the layer at fault. `python -m models.quantize --max-drop 0.1` writes an artifact with as few layers
in FP32 as the bound needs.
"""
