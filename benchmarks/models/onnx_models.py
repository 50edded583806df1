"""ONNX files, run by onnxruntime: in the file's own precision, in half precision, or quantised here."""

from __future__ import annotations

import importlib
import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.models.cases import PRECISIONS, CannotRun, LeftOut, Mistake, sentence
from benchmarks.models.pictures import labelled, tensor
from benchmarks.models.tensors import OnTensors

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from benchmarks.models.boxes import Outputs
    from benchmarks.models.cases import Case, Size

CPU = "CPUExecutionProvider"
SHORT = {"cpu": CPU, "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
QUANTISED = {"QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
CALIBRATION = 100
"""Labelled pictures, at most, from which the ranges of a static quantisation are taken."""


class OnnxModel:
    """A file. `Mistake` if it is missing or no ONNX file."""

    libraries: tuple[str, ...] = ("onnx", "onnxruntime", "onnxruntime-gpu", "numpy")
    modules: tuple[str, ...] = ("onnxruntime",)

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        self._options = options
        self._files: dict[tuple[str, int, tuple[int, ...]], Path] = {}
        self._sessions: dict[tuple[Path, str, int], Any] = {}
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reports to its maker otherwise
        onnx = importlib.import_module("onnx")
        if not Path(name).is_file():
            raise Mistake(f"{name} is no file")
        try:
            graph = onnx.load(name, load_external_data=False).graph
        except Exception as error:  # the parser of protobuf has its own exceptions
            raise Mistake(f"{name} is no ONNX file: {sentence(error)}") from None
        weights = {initializer.name for initializer in graph.initializer}
        self._inputs = [_Input(onnx, value) for value in graph.input if value.name not in weights]
        if not self._inputs or not graph.node:
            raise Mistake(f"{name} is no ONNX file: it has no input or no operator")
        halves = [weight.data_type == onnx.TensorProto.FLOAT16 for weight in graph.initializer]
        quantised = any(node.op_type in QUANTISED for node in graph.node)
        self._own = "int8" if quantised else "fp16" if any(halves) else "fp32"
        self.precisions = tuple(precision for precision in PRECISIONS if precision != "bf16")
        if self._own != "fp32":
            self.precisions = (self._own,)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": {}}

    def provider(self, asked: str) -> str:
        """The execution provider that is called so; without a name CUDA where onnxruntime has it, else the CPU."""
        onnxruntime = importlib.import_module("onnxruntime")
        if not asked:
            cuda = SHORT["cuda"]
            return cuda if cuda in onnxruntime.get_available_providers() else CPU
        name = SHORT.get(asked, asked)
        if name not in onnxruntime.get_all_providers():
            raise Mistake(f"--providers: {asked} is no provider of onnxruntime; it has {', '.join(available())}")
        return name

    def shape(self, size: Size | None) -> tuple[int, ...]:
        """What the file says, or the options; `Mistake` if neither does."""
        dims: list[int | None] = list(self._options.input_shape or self._inputs[0].dims[1:])
        if size:
            if len(dims) != 3:  # noqa: PLR2004 - channels and two sides
                raise Mistake(f"--input-sizes: the input of {self.name} is no picture, use --input-shape")
            first = dims[0] in {1, 3} or dims[0] is None
            dims[1 if first else 0], dims[2 if first else 1] = size
        if any(dim is None for dim in dims):
            told = "x".join("?" if dim is None else str(dim) for dim in dims)
            raise Mistake(
                f"{self.name} leaves the shape of its input open ({told}): use --input-sizes or --input-shape"
            )
        return tuple(dim for dim in dims if dim is not None)

    def prepare(self, case: Case, folder: Path) -> None:
        """Write the file of the case: another precision, or a shape that the file does not allow."""
        if case.provider not in available():
            raise CannotRun(f"{case.provider} is not in this onnxruntime, which has {', '.join(available())}")
        batch, *dims = self._inputs[0].dims
        fits = all(dim in {None, given} for dim, given in zip([batch, *dims], [case.batch, *case.shape], strict=True))
        key = self._key(case)
        if key in self._files:
            return
        source = Path(self.name)
        if not fits:
            source = self._reshaped(case, folder / f"{len(self._files)}-shape.onnx")
        if case.precision != self._own:
            target = folder / f"{len(self._files)}-{case.precision}.onnx"
            with quiet():
                self._converted(source, target, case)
            source = target
        self._files[key] = source

    def runner(self, case: Case) -> OnnxRunner:
        """A session, shared by all cases that differ in the batch or the streams alone."""
        onnxruntime = importlib.import_module("onnxruntime")
        file = self._files[self._key(case)]
        place = file, case.provider, case.threads
        if place not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = case.threads
            options.log_severity_level = 3  # a fallback is told in the row
            providers = list(dict.fromkeys([case.provider, CPU]))
            self._sessions[place] = onnxruntime.InferenceSession(str(file), options, providers=providers)
        feed = {each.name: each.random(case, self._inputs[0]) for each in self._inputs}
        runner = OnnxRunner(self._sessions[place], case, feed, self._options)
        if any(self._key(case)[1:]):
            dims = "x".join("?" if dim is None else str(dim) for dim in self._inputs[0].dims)
            runner.notes += (f"the file says {dims} of its input, which was changed",)
        return runner

    def _key(self, case: Case) -> tuple[str, int, tuple[int, ...]]:
        """What makes another file necessary."""
        batch, *dims = self._inputs[0].dims
        fixed = all(dim in {None, given} for dim, given in zip(dims, case.shape, strict=True))
        return case.precision, 0 if batch in {None, case.batch} else case.batch, () if fixed else case.shape

    def _reshaped(self, case: Case, target: Path) -> Path:
        """The file with the shape of the case: networks of convolutions alone take any, others fail when loaded."""
        onnx = importlib.import_module("onnx")
        model = onnx.load(self.name)
        value = next(value for value in model.graph.input if value.name == self._inputs[0].name)
        given = (case.batch, *case.shape)
        for dim, old, new in zip(value.type.tensor_type.shape.dim, self._inputs[0].dims, given, strict=True):
            if old is not None:
                dim.dim_value = new
        model.graph.ClearField("value_info")
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
        onnx.save(model, str(target))
        return target

    def _converted(self, source: Path, target: Path, case: Case) -> None:
        """Write it in another precision."""
        if case.precision == "fp16":
            onnx = importlib.import_module("onnx")
            float16 = importlib.import_module("onnxruntime.transformers.float16")
            onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), str(target))
            return
        quantization = importlib.import_module("onnxruntime.quantization")
        if case.precision == "int8":
            # Convolutions of integers take unsigned weights only.
            quantization.quantize_dynamic(source, target, weight_type=quantization.QuantType.QUInt8)
            return
        if not self._options.labelled:
            raise LeftOut("int8-static takes its ranges from pictures: give --labelled")
        first, mean, deviation = self._inputs[0], self._options.mean, self._options.deviation
        pictures = labelled(Path(self._options.labelled)).pictures
        every = max(1, len(pictures) // CALIBRATION)
        feeds = iter(
            {first.name: tensor(path, case.shape, first.dtype, mean, deviation)[np.newaxis]}
            for path in pictures[::every][:CALIBRATION]
        )
        batch = self._inputs[0].dims[0] if not self._key(case)[1] else case.batch
        if batch not in {None, 1} or len(self._inputs) > 1:
            raise CannotRun("int8-static needs a network of one input whose batch is open or 1")

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
            def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
                return next(feeds, None)

        quantization.quantize_static(source, target, Reader())


class OnnxRunner(OnTensors):
    """A session with inputs."""

    def __init__(
        self, session: Any, case: Case, feed: dict[str, npt.NDArray[Any]], options: argparse.Namespace
    ) -> None:
        first = next(iter(feed))
        names = [output.name for output in session.get_outputs()]

        def infer(batch: npt.NDArray[Any]) -> Outputs:
            return dict(zip(names, session.run(None, {**feed, first: batch}), strict=True))

        super().__init__(case, infer, feed[first].dtype, options.mean, options.deviation)
        self.calls: Sequence[Callable[[], object]] = [lambda: session.run(None, feed)] * case.streams
        self.names: Mapping[int, str] = {}
        self.ran: str = session.get_providers()[0]
        fell_back = self.ran != case.provider
        self.notes: tuple[str, ...] = (
            (f"asked for {case.provider}, onnxruntime fell back to {self.ran}",) if fell_back else ()
        )

    def enter(self) -> None:
        """A session has its own threads."""

    def device_memory(self) -> int | None:
        """Onnxruntime does not tell."""
        return None


class _Input:
    """An input of a graph: its name, the type of its elements, and its axes, None for an open one."""

    def __init__(self, onnx: Any, value: Any) -> None:
        kind = value.type.tensor_type
        self.name: str = value.name
        self.dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        self.dims: list[int | None] = [dim.dim_value or None for dim in kind.shape.dim]
        self.symbols: list[str] = [dim.dim_param for dim in kind.shape.dim]

    def random(self, case: Case, first: _Input) -> npt.NDArray[Any]:
        """Values to infer from; `CannotRun` if an axis is open that the first input has not."""
        given = dict(zip(first.symbols, (case.batch, *case.shape), strict=True))
        shape = [case.batch, *case.shape] if self is first else []
        for place, (dim, symbol) in enumerate(zip(self.dims, self.symbols, strict=True)) if not shape else ():
            size = dim or given.get(symbol or "-") or (case.batch if place == 0 else None)
            if size is None:
                raise CannotRun(f"axis {place} of the input {self.name} is open, and nothing tells its size")
            shape.append(size)
        source = np.random.default_rng(0)
        if np.issubdtype(self.dtype, np.floating):
            return source.random(shape).astype(self.dtype)
        # Whole numbers of one byte are pixels; others may be places in a table, of which all have two.
        return source.integers(0, 256 if self.dtype.itemsize == 1 and self.dtype.kind == "u" else 2, shape).astype(
            self.dtype
        )


def available() -> Sequence[str]:
    """What this onnxruntime has."""
    found: list[str] = importlib.import_module("onnxruntime").get_available_providers()
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Without the advice that the quantisation logs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
