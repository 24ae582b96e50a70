"""ONNX Runtime and OpenVINO on the same weights.

The process of a row imports no torch, so that its memory is the runtime's; another process exports the network.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import sample

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # else it reports each import over the network

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
ForBatch = Callable[[int], Run]
CALIBRATION_BATCH = 50


def onnxruntime_fp32(threads: int, folder: Path) -> ForBatch:
    """Build ONNX Runtime on the exported network."""
    run = _onnxruntime(onnx_model(folder), threads)
    return lambda _size: run


def onnxruntime_int8(threads: int, folder: Path) -> ForBatch:
    """Build ONNX Runtime's static QDQ: u8 activations, s8 weights per channel, calibrated by minimum and maximum."""
    path = folder / "onnxruntime-int8.onnx"
    if not path.exists():
        _quantize_onnx(onnx_model(folder), path)
    run = _onnxruntime(path, threads)
    return lambda _size: run


def openvino_fp32(threads: int, folder: Path) -> ForBatch:
    """Build OpenVINO on the exported network."""
    path = onnx_model(folder)
    return lambda size: _openvino(path, threads, size)


def openvino_int8(threads: int, folder: Path) -> ForBatch:
    """Build OpenVINO on NNCF's post-training quantization with its defaults."""
    path = folder / "openvino-int8.xml"
    if not path.exists():
        _in_another_process("openvino", folder)
    return lambda size: _openvino(path, threads, size)


def onnx_model(folder: Path) -> Path:
    """Return the file of the FP32 network as ONNX, from uint8 pixels, for any batch size; export it if missing."""
    path = folder / "fp32.onnx"
    if not path.exists():
        _in_another_process("onnx", folder)
    return path


def _in_another_process(step: str, folder: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.runtimes", step, str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])


def _export(path: Path) -> None:
    import torch

    from benchmarks.peers import Pixels, example

    axes = {"pixels": {0: "n"}, "logits": {0: "n"}}
    torch.onnx.export(
        Pixels(), (example(1),), str(path), dynamo=False, input_names=["pixels"], output_names=["logits"],
        dynamic_axes=axes,
    )  # fmt: skip


def _calibration_batches() -> Iterator[dict[str, NDArray[np.uint8]]]:
    images = sample()
    for start in range(0, len(images), CALIBRATION_BATCH):
        yield {"pixels": images[start : start + CALIBRATION_BATCH]}


def _quantize_onnx(source: Path, target: Path) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Sample(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = _calibration_batches()

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            return next(self.batches, None)

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    quantization.quantize_static(
        str(prepared), str(target), Sample(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip


def _quantize_openvino(source: Path, target: Path) -> None:
    import nncf
    import openvino

    images = [batch["pixels"] for batch in _calibration_batches()]
    model = openvino.Core().read_model(source)
    openvino.save_model(nncf.quantize(model, nncf.Dataset(images)), target, compress_to_fp16=False)


def _onnxruntime(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        array: NDArray[np.float32] = session.run(None, {"pixels": pixels})[0]
        return array

    return run


def _openvino(path: Path, threads: int, size: int) -> Run:
    """Return the network compiled for one batch size, in one stream."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape([size, *sample().shape[1:]])
    hints = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads),
             "INFERENCE_PRECISION_HINT": "f32"}  # fmt: skip
    request = core.compile_model(model, "CPU", hints).create_infer_request()

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        array: NDArray[np.float32] = request.infer([pixels], share_inputs=True)[0].copy()
        return array

    return run


def main(step: str, folder: Path) -> None:
    """Write the file of one step: `onnx` or `openvino`."""
    if step == "onnx":
        _export(folder / "fp32.onnx")
    else:
        _quantize_openvino(onnx_model(folder), folder / "openvino-int8.xml")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
