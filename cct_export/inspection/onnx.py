"""What is in an ONNX file: read with onnx, placed by ONNX Runtime."""

from pathlib import Path
from typing import Any

from cct_export.errors import InvalidArtifact, MissingDependency
from cct_export.inspection.onnx_graph import Graph, Value, annotated, steps, stored
from cct_export.records import CONTRACT_KEY, Contract, Inspection, Tensor
from cct_export.runtimes import onnxruntime as engine
from cct_export.runtimes.onnxruntime_providers import CPU

# What ONNX Runtime calls other than numpy does.
_ENGINE_TYPES = {"float": "float32", "double": "float64"}


def inspect(path: Path) -> Inspection:
    """Returns what is in ``path``.

    Raises:
        InvalidArtifact: not an ONNX file that onnx or ONNX Runtime accepts.
        MissingDependency: onnx or onnxruntime is not installed.
    """
    engine.import_engine()
    import onnxruntime

    model = _read(path)
    places, refusal = _placement(model)
    if refusal:
        _check(model, path, refusal)
    try:
        properties = {entry.key: entry.value for entry in model.metadata_props}
        contract = Contract.parse(properties.get(CONTRACT_KEY, "{}"))
    except ValueError as error:
        raise InvalidArtifact(f"{path}: its {CONTRACT_KEY} cannot be read: {error}") from error
    known = stored(model.graph)
    inputs = [end for end in model.graph.input if end.name not in known]
    ends = [
        tuple(_end(end, annotated(model.graph)) for end in side)
        for side in (inputs, model.graph.output)
    ]
    _fix_batch(model, inputs)
    graph = Graph(model, _inferred(model, runs=not refusal))
    partitions = {name: 0 for name in places if name.isdecimal()}
    operators = graph.operators(partitions)
    unknown = sum(operator.macs is None for operator in operators)
    return Inspection(
        path=path,
        format="onnx",
        contract=contract,
        size_bytes=path.stat().st_size,
        inputs=ends[0],
        outputs=ends[1],
        operators=operators,
        parameters=graph.parameters(),
        tensors=len(graph.names()),
        quantized=graph.quantized(),
        engine=f"onnxruntime {onnxruntime.__version__}",
        nodes=None if refusal else len(places),
        delegated=None if refusal else len(places),
        # One provider, the CPU's, takes everything: one part.
        partitions=None if refusal else min(1, len(places)),
        warnings=_warnings(refusal, unknown),
    )


def _warnings(refusal: str, unknown: int) -> tuple[str, ...]:
    found = [f"ONNX Runtime cannot run it: {refusal}"] if refusal else []
    if unknown:
        found.append(f"the shapes of {unknown} operators are unknown: their MACs are not counted")
    return tuple(found)


def _read(path: Path) -> Any:
    """Returns the model with functions unfolded and every operator named by its place."""
    try:
        import onnx
        import onnx.inliner
        from google.protobuf.message import DecodeError
    except ImportError:
        raise MissingDependency.of("onnx", "onnx") from None

    try:
        model = onnx.load(path, format="protobuf")
    except (DecodeError, onnx.checker.ValidationError, OSError) as error:
        raise InvalidArtifact(f"{path}: not a readable ONNX file: {error}") from error
    if not model.ir_version or not model.graph.output:
        raise InvalidArtifact(f"{path}: not a readable ONNX file: no graph with an output")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    # A name that is missing or used twice could not be found again in what ONNX Runtime runs.
    for place, node in enumerate(steps(model.graph)):
        node.name = str(place)
    return model


def _placement(model: Any) -> tuple[list[str], str]:
    """Returns the names of the nodes that ONNX Runtime runs, or why it runs none."""
    try:
        session = _session(model)
    except Exception as error:  # its exceptions have no common base class
        return [], str(error).strip().partition("\n")[0] or type(error).__name__
    parts = session.get_provider_graph_assignment_info()
    return [node.name for part in parts for node in part.get_nodes()], ""


def _session(model: Any, optimized: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # The fallback, which tries the same provider again, prints on standard output.
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=[CPU], enable_fallback=0
    )


def _check(model: Any, path: Path, refusal: str) -> None:
    """Raises ``InvalidArtifact`` if onnx finds fault too with what ONNX Runtime refuses."""
    import onnx

    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InvalidArtifact(f"ONNX Runtime cannot open {path}: {refusal}") from error


def _fix_batch(model: Any, inputs: list[Any]) -> None:
    """Sets the first size of each input to 1 where it is open, and what has the same symbol."""
    symbols = set()
    for end in inputs:
        sizes = end.type.tensor_type.shape.dim
        if sizes and not sizes[0].HasField("dim_value"):
            symbols.add(sizes[0].dim_param)
            sizes[0].dim_value = 1
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param and size.dim_param in symbols:
                size.dim_value = 1


def _end(info: Any, values: dict[str, Value]) -> Tensor:
    return Tensor(info.name, *values[info.name])


def _inferred(model: Any, runs: bool) -> dict[str, Value]:
    """Returns type and shape of every tensor for which they can be known.

    onnx knows the standard operators; for what is left ONNX Runtime, which knows its own too, is
    asked, if it can open the file.
    """
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        inferred = model
    found = annotated(inferred.graph)
    outputs = [name for node in model.graph.node for name in node.output if name]
    missing = [name for name in outputs if not _is_known(found.get(name))]
    return found | (_asked(model, missing) if missing and runs else {})


def _is_known(value: Value | None) -> bool:
    return value is not None and value.shape is not None and None not in value.shape


def _asked(model: Any, names: list[str]) -> dict[str, Value]:
    """Returns type and shape of tensors as ONNX Runtime sees them."""
    import onnx

    open = onnx.ModelProto()
    open.CopyFrom(model)
    given = {end.name for end in open.graph.output}
    open.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    found = {}
    # An optimization could do away with the tensors asked for.
    for end in _session(open, optimized=False).get_outputs():
        dtype = end.type.removeprefix("tensor(").removesuffix(")")
        if end.name in names and dtype != end.type:
            sizes = tuple(size if isinstance(size, int) else None for size in end.shape)
            found[end.name] = Value(_ENGINE_TYPES.get(dtype, dtype), sizes)
    return found
