"""HDNet as one ONNX graph of any batch and size, LD and MGD inside; in float32 or, for processors with VNNI, in int8.

Needs the extra "export": ``pip install 'hdnet-lab[export]'``.
"""

import copy
import logging
import math
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hdnet_lib.model.hdnet import STRIDE, HDNet, check_inputs
from hdnet_lib.model.streaming import StreamingLocalDynamic
from hdnet_lib.utils.files import atomic_write, first_line

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
LARGEST_SIDE = 4096
"""Of an image in pixels. LD compares all pairs of positions in the graph: HDNet-lite takes 3.2 GB at 1024 pixels."""
FEWEST_CHANNELS = 32
"""A convolution with fewer stays in float32: turning its maps into integers takes longer than int8 saves."""

Composite = tuple[Tensor, Tensor]
"""What the network gets: a composite (B, 3, H, W) in [-1, 1] and its mask (B, 1, H, W)."""


def export_onnx(model: nn.Module, path: str | Path, calibration: Iterable[Composite] | None = None) -> None:
    """Write a network as ONNX: inputs "composite" and "mask", output "output", as :meth:`HDNet.forward` has them.

    Args:
        model: an :class:`HDNet`; it stays as it is.
        path: file to write, ``.onnx``.
        calibration: real composites, some tens of them; with them, the convolutions become int8, their activations on
            scales that cover 99.999 % of what these composites cause. What touches the full resolution or has fewer
            than 32 channels stays in float32, as do LD's matching, MGD and the normalisations.

    Raises:
        ValueError: the model is another network, a package is missing, the path cannot be written, or ``calibration``
            is empty.
    """
    need(*PACKAGES)
    if not isinstance(model, HDNet):
        raise ValueError(f"ONNX export is for HDNet alone, not for {type(model).__name__}.")
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"output {path}: use a file name that ends with .onnx.")
    if not path.parent.is_dir():
        raise ValueError(f"output {path}: the folder {path.parent} does not exist.")
    model = copy.deepcopy(model).cpu().float().eval()
    if isinstance(model.local_dynamic, StreamingLocalDynamic):
        model.local_dynamic.largest_dense = math.inf  # a graph has no loop over blocks
    with atomic_write(path) as part:
        if calibration is None:
            _write(model, part)
        else:
            _quantize(model, part, list(calibration))


def need(*packages: str) -> None:
    """Raise one sentence where the extra "export" is not installed."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise ValueError(f"ONNX needs {', '.join(missing)}: install them with pip install 'hdnet-lab[export]'.")


def _write(model: HDNet, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    height, width = (torch.export.Dim(name, min=4, max=LARGEST_SIDE // STRIDE) for name in ("rows", "columns"))
    shape = {0: batch, 2: STRIDE * height, 3: STRIDE * width}
    # Two of each, and different sides: a dimension of the example that is 1 or equals another would be fixed.
    example = torch.zeros(2, 3, 64, 96), torch.zeros(2, 1, 64, 96)
    with _quiet():
        program: Any = torch.onnx.export(
            model, example, input_names=["composite", "mask"], output_names=["output"],
            dynamic_shapes={"composite": shape, "mask": shape}, dynamo=True, opset_version=20, verbose=False
        )  # fmt: skip
        program.save(str(path))


def _quantize(model: HDNet, path: Path, calibration: list[Composite]) -> None:
    from onnxruntime import quantization

    if not calibration:
        raise ValueError("int8 needs composites to calibrate with, and there is none.")
    # ONNX Runtime has int8 for plain convolutions only. The last stage stays in float32.
    for stage in model.decoder[:-1]:
        stage.conv = as_convolution(stage.get_submodule("conv"))

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.inputs = ({"composite": c.numpy(), "mask": m.numpy()} for c, m in calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.inputs, None)

    with tempfile.TemporaryDirectory(dir=path.parent) as folder, _quiet():
        plain = Path(folder) / "float.onnx"
        _write(model, plain)
        quantization.quantize_static(
            plain, path, Reader(), quantization.QuantFormat.QDQ, op_types_to_quantize=["Conv"], per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_kept_in_float(plain), calibrate_method=quantization.CalibrationMethod.Percentile
        )  # fmt: skip


def _kept_in_float(path: Path) -> list[str]:
    """Convolutions at full resolution, narrow ones and 1x1 ones, by the names of their nodes."""
    import onnx

    graph = onnx.load(path).graph
    weights = {weight.name: weight.dims for weight in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "Conv":
            name = node.input[1]
            shape = weights.get(name, ())
            full = name.startswith(("encoder.0.", "encoder.1."))
            if full or len(shape) != 4 or min(shape[:2]) < FEWEST_CHANNELS or max(shape[2:]) == 1:
                kept.append(node.name)
    return kept


@torch.no_grad()
def as_convolution(transposed: nn.Module) -> nn.Module:
    """The same map as a transposed convolution of this network: 3x3 with stride 1, or 4x4 with stride 2, padding 1.

    With stride 2, each of the four outputs of a position sees 2x2 of its 3x3 neighbours: four kernels and a shuffle.
    """
    assert isinstance(transposed, nn.ConvTranspose2d)
    inputs, outputs = transposed.in_channels, transposed.out_channels
    kernels = transposed.weight.transpose(0, 1)  # (outputs, inputs, 3 or 4, 3 or 4)
    if transposed.stride == (1, 1):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        convolution.weight.copy_(kernels.flip(2, 3))
        return convolution
    convolution = nn.Conv2d(inputs, 4 * outputs, 3, padding=1, bias=False)
    phases = torch.zeros(outputs, 2, 2, inputs, 3, 3)
    # Output row 2 i + a takes input row i + d with the kernel's row a + 1 - 2 d.
    rows = [(phase, step, phase + 1 - 2 * step) for phase in (0, 1) for step in (phase - 1, phase)]
    for a, i, row in rows:
        for b, j, column in rows:
            phases[:, a, b, :, i + 1, j + 1] = kernels[:, :, row, column]
    convolution.weight.copy_(phases.view(4 * outputs, inputs, 3, 3))
    return nn.Sequential(convolution, nn.PixelShuffle(2))


@contextmanager
def _quiet() -> Iterator[None]:
    """Let exporter and quantiser say nothing of themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(None):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class OnnxModel(nn.Module):
    """A network that :func:`export_onnx` wrote, run by ONNX Runtime on the CPU; called as :class:`HDNet` is.

    Args:
        path: the ``.onnx`` file.

    Raises:
        ValueError: the package is missing, or the file is no such network.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        need("onnxruntime")
        import onnxruntime

        if not Path(path).is_file():
            raise ValueError(f"{path}: there is no such file.")
        self.path = Path(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that wait must not take the processor from PyTorch's.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of types that the package does not publish
            raise ValueError(f"{path}: ONNX Runtime cannot read this file: {first_line(error)}.") from None
        if [value.name for value in self.session.get_inputs()] != ["composite", "mask"]:
            raise ValueError(f"{path}: this is no network that `hdnet export` wrote.")

    def forward(self, composite: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`HDNet.forward`; float32 on the CPU, at least 32 pixels a side."""
        check_inputs(composite, mask)
        inputs = {"composite": composite.cpu().numpy(), "mask": mask.cpu().numpy()}
        return torch.from_numpy(self.session.run(["output"], inputs)[0])
