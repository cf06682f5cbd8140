"""Every operator of a file for TFLite Micro computes there what LiteRT's reference kernel does."""

import numpy as np
import pytest
from classifiers import CLASSIFIERS

from cct_export.data.sampling import photo_crops
from cct_export.formats import tflite, tflite_micro
from cct_export.graph.fold import fold
from cct_export.quantize.ptq import quantize
from cct_export.quantize.schemes import SCHEMES
from cct_export.quantize.statistics import collect
from cct_export.runtimes import tflm
from cct_export.specs import ExportSpec

pytestmark = pytest.mark.skipif(
    not tflm.is_installed(), reason="tflite-micro is for CPython 3.11 on x86-64 Linux only"
)
# LiteRT rounds these once, TFLite Micro twice.
STEPS = {"FULLY_CONNECTED": 1}


def file_of(plan, io):
    """Returns a plan in integers, and images."""
    spec = ExportSpec("tflite", "int8-full", io, target="tflm")
    plan = tflite.legalize(fold(plan), spec)
    images = photo_crops(plan.image_shape, 4, 2)
    statistics = collect(plan, images, "crops")
    return tflite.emit(quantize(plan, SCHEMES["int8-full"], statistics), spec), images


def errors(content, image):
    """Yields kind, and largest difference in integers, of every operator on the same inputs."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    from ai_edge_litert.tools import flatbuffer_utils
    from tflite_micro import runtime

    micro = runtime.Interpreter.from_bytes(
        content,
        arena_size=2**24,
        intrepreter_config=runtime.InterpreterConfig.kPreserveAllTensors,
    )
    micro.set_input(image, 0)
    micro.invoke()
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    model.signatureDefs, graph = None, model.subgraphs[0]
    for operator in list(graph.operators):
        sources = {int(i) for i in operator.inputs if i >= 0}
        sources = sorted(i for i in sources if model.buffers[graph.tensors[i].buffer].data is None)
        graph.operators, graph.inputs, graph.outputs = [operator], sources, operator.outputs
        alone = Interpreter(
            model_content=bytes(flatbuffer_utils.convert_object_to_bytearray(model)),
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        )
        alone.allocate_tensors()
        for details, index in zip(alone.get_input_details(), sources, strict=True):
            value = np.asarray(micro.GetTensor(index, 0)["tensor_data"])
            alone.set_tensor(details["index"], value.reshape(details["shape"]))
        alone.invoke()
        expected = alone.get_tensor(alone.get_output_details()[0]["index"]).astype(int)
        found = np.asarray(micro.GetTensor(int(operator.outputs[0]), 0)["tensor_data"]).astype(int)
        kind = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
        yield kind, int(np.abs(found.reshape(expected.shape) - expected).max())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_an_operator_gives_the_integers_of_litert(name):
    content, images = file_of(CLASSIFIERS[name], "int8")
    for image in images[:2]:
        for kind, error in errors(content, (image[None].astype(int) - 128).astype(np.int8)):
            assert error <= STEPS.get(kind, 0), kind


@pytest.mark.parametrize("slice_bytes", [2**17, 2**10])
def test_so_do_those_of_a_cct_with_its_softmax_whole_and_in_slices(
    small_spec, monkeypatch, slice_bytes
):
    from cct_export.graph.lower import lower
    from cct_export.model.cct import CCT

    monkeypatch.setattr(tflite_micro, "_SLICE_BYTES", slice_bytes)
    content, images = file_of(lower(CCT(small_spec)), "int8")
    kinds = set()
    for kind, error in errors(content, (images[:1].astype(int) - 128).astype(np.int8)):
        assert error <= STEPS.get(kind, 0), kind
        kinds.add(kind)
    assert kinds >= {"REDUCE_MAX", "MEAN", "RSQRT", "GATHER", "BATCH_MATMUL"}
    assert ("CONCATENATION" in kinds) == (slice_bytes == 2**10)


def test_images_and_logits_may_be_unsigned():
    content, images = file_of(CLASSIFIERS["sigmoid"], "uint8")
    kinds = dict(errors(content, images[:1]))
    assert kinds["QUANTIZE"] == 0
