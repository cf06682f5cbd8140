"""Inspection of an ONNX file: parsed with onnx, assigned to a provider by ONNX Runtime."""

from pathlib import Path
from typing import Any

from cct_export.errors import InvalidArtifact, MissingDependency
from cct_export.inspection.onnx_graph import Graph, Value, annotations, constants_of, nodes_of
from cct_export.records import CONTRACT_KEY, Contract, Inspection, Tensor
from cct_export.runtimes import onnxruntime as engine
from cct_export.untrusted import Malformed, refusing

# ONNX Runtime's names of types that numpy names differently.
_ENGINE_TYPES = {"float": "float32", "double": "float64"}


def inspect(path: Path) -> Inspection:
    """Lists operators and tensors of an ``.onnx`` file.

    Raises:
        InvalidArtifact: neither onnx nor ONNX Runtime accepts the file.
        MissingDependency: onnx or onnxruntime is not installed.
    """
    engine.import_engine()
    with refusing(InvalidArtifact, f"{path}: not a readable ONNX file"):
        return _inspect(path)


def _inspect(path: Path) -> Inspection:
    import onnxruntime

    model = _read(path)
    assigned, error_line = _assigned_nodes(model)
    if error_line:
        _check(model, path, error_line)
    contract = _contract(model)
    constants = constants_of(model.graph)
    inputs = [value for value in model.graph.input if value.name not in constants]
    values = annotations(model.graph)
    # Before the batch is fixed: an open batch is shown as open.
    input_records, output_records = (
        tuple(Tensor(value.name, *values[value.name]) for value in side)
        for side in (inputs, model.graph.output)
    )
    _fix_batch(model, inputs)
    graph = Graph(model, _infer(model, runs=not error_line))
    operators = graph.operators({name: 0 for name in assigned if name.isdecimal()})
    unknown = sum(operator.macs is None for operator in operators)
    return Inspection(
        path=path,
        format="onnx",
        contract=contract,
        size_bytes=path.stat().st_size,
        inputs=input_records,
        outputs=output_records,
        operators=operators,
        parameters=graph.parameters(),
        tensors=len(graph.names()),
        quantized=graph.quantized(),
        engine=f"onnxruntime {onnxruntime.__version__}",
        nodes=None if error_line else len(assigned),
        delegated=None if error_line else len(assigned),
        # The CPU's provider runs everything: one partition.
        partitions=None if error_line else min(1, len(assigned)),
        warnings=_warnings(error_line, unknown),
    )


def _warnings(error_line: str, unknown: int) -> tuple[str, ...]:
    warnings = [f"ONNX Runtime cannot run it: {error_line}"] if error_line else []
    if unknown:
        warnings.append(
            f"the shapes of {unknown} operators are unknown: their MACs are not counted"
        )
    return tuple(warnings)


def _contract(model: Any) -> Contract:
    properties = {entry.key: entry.value for entry in model.metadata_props}
    return Contract.parse(properties.get(CONTRACT_KEY, "{}"))


def _read(path: Path) -> Any:
    """Returns the model with inlined functions and every node named by its position."""
    try:
        import onnx
        import onnx.inliner
    except ImportError:
        raise MissingDependency.of("onnx", "onnx") from None

    try:
        model = onnx.load(path, format="protobuf")
    # It names the file of weights that is missing, or what is wrong with a place in it.
    except (onnx.checker.ValidationError, ValueError) as error:
        raise Malformed(error) from error
    if not model.ir_version or not model.graph.output:
        raise Malformed("no graph with an output")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    # Nodes without a name, or with the same one, could not be identified in ONNX Runtime's graph.
    for position, node in enumerate(nodes_of(model.graph)):
        node.name = str(position)
    return model


def _assigned_nodes(model: Any) -> tuple[list[str], str]:
    """Returns the names of the nodes that ONNX Runtime runs, or none and its error message."""
    try:
        session = _session(model)
    except Exception as error:  # its exceptions have no common base class
        return [], str(error).strip().partition("\n")[0] or type(error).__name__
    subgraphs = session.get_provider_graph_assignment_info()
    return [node.name for subgraph in subgraphs for node in subgraph.get_nodes()], ""


def _session(model: Any, optimized: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # The fallback retries the same provider and prints on standard output.
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=[engine.CPU], enable_fallback=0
    )


def _check(model: Any, path: Path, error_line: str) -> None:
    """Raises ``InvalidArtifact`` if onnx, like ONNX Runtime, does not accept the model."""
    import onnx

    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InvalidArtifact(f"ONNX Runtime cannot open {path}: {error_line}") from error


def _fix_batch(model: Any, inputs: list[Any]) -> None:
    """Sets an open batch axis of the inputs to 1, and all axes with the same symbol."""
    symbols = set()
    for value in inputs:
        axes = value.type.tensor_type.shape.dim
        if axes and not axes[0].HasField("dim_value"):
            symbols.add(axes[0].dim_param)
            axes[0].dim_value = 1
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param and axis.dim_param in symbols:
                axis.dim_value = 1


def _infer(model: Any, runs: bool) -> dict[str, Value]:
    """Infers type and shape of as many tensors as possible.

    onnx knows the standard operators. For the remaining tensors ONNX Runtime, which knows its own
    operators too, is used if it can open the file.
    """
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        inferred = model
    values = annotations(inferred.graph)
    outputs = [name for node in model.graph.node for name in node.output if name]
    unknown = [name for name in outputs if not _is_known(values.get(name))]
    return values | (_infer_with_engine(model, unknown) if unknown and runs else {})


def _is_known(value: Value | None) -> bool:
    return value is not None and value.shape is not None and None not in value.shape


def _infer_with_engine(model: Any, names: list[str]) -> dict[str, Value]:
    """Returns type and shape of tensors according to ONNX Runtime."""
    import onnx

    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    outputs = {value.name for value in extended.graph.output}
    extended.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in outputs
    )
    values = {}
    # Optimizations could remove these tensors.
    for output in _session(extended, optimized=False).get_outputs():
        dtype = output.type.removeprefix("tensor(").removesuffix(")")
        if output.name in names and dtype != output.type:
            shape = tuple(size if isinstance(size, int) else None for size in output.shape)
            values[output.name] = Value(_ENGINE_TYPES.get(dtype, dtype), shape)
    return values
