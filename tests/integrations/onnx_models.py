"""Small ONNX models, made here, whose outputs are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

onnx = pytest.importorskip("onnx")
onnxruntime: Any = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING

Tensor = tuple[str, int, "Sequence[int | str]"]


def model(
    nodes: Sequence[tuple[str, Sequence[str], Sequence[str]]],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    metadata: Mapping[str, str] | None = None,
    graph: str = "main_graph",
    version: int | None = None,
) -> bytes:
    """A model of `nodes`, each an operator with its inputs and outputs."""
    made = helper.make_model(
        helper.make_graph(
            [helper.make_node(operator, taken, given) for operator, taken, given in nodes],
            graph,
            [helper.make_tensor_value_info(*tensor) for tensor in inputs],
            [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
        producer_name="tests",
    )
    helper.set_model_props(made, dict(metadata or {}))
    if version is not None:
        made.model_version = version
    return bytes(made.SerializeToString())


def passed_through(
    *tensors: tuple[str, str, int, Sequence[int | str]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """A model that gives its inputs: the name of each input, that of its output, type and shape."""
    return model(
        [("Identity", [given], [name]) for given, name, _, _ in tensors],
        [(given, kind, shape) for given, _, kind, shape in tensors],
        [(name, kind, shape) for _, name, kind, shape in tensors],
        metadata,
    )


def adder(metadata: Mapping[str, str] | None = None, graph: str = "main_graph", version: int | None = None) -> bytes:
    """A model that adds two pictures, (n, 3, 8, 8)."""
    shape = ("n", 3, 8, 8)
    return model(
        [("Add", ["a", "b"], ["sum"])],
        [("a", FLOAT, shape), ("b", FLOAT, shape)],
        [("sum", FLOAT, shape)],
        metadata,
        graph,
        version,
    )


def written(folder: Path, name: str, content: bytes) -> str:
    """The path of a model that is stored as `name`."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def session(content: bytes | str | None = None, **options: Any) -> Any:
    """A session on the CPU, of the adder unless told otherwise."""
    return onnxruntime.InferenceSession(content or adder(), providers=["CPUExecutionProvider"], **options)


def values(arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays as values of onnxruntime."""
    return {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
