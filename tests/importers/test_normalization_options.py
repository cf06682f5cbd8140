"""Options of a normalization: which are warned of, and how they are written."""

import pytest
from networks import CAFFE, TORCH, network

from cct_export.importers.source import in_memory
from cct_export.specs import ModelOptions, Normalization


def test_deviations_of_scaled_pixels_without_their_scale_are_warned_of(caplog):
    imagenet = Normalization(mean=TORCH.mean, std=TORCH.std)
    in_memory(network(), ModelOptions(normalization=imagenet))
    assert "add --scale 1/255" in caplog.text


@pytest.mark.parametrize(
    ("normalization", "values"),
    [
        (Normalization(scale=1 / 255, mean=(123.0, 117.0, 104.0)), "-123 to -103"),
        (Normalization(mean=(0.485, 0.456, 0.406)), "-0.485 to 255"),
        (Normalization(mean=TORCH.mean, std=(58.395, 57.12, 57.375)), "-0.00831 to 4.46"),
        (Normalization(scale=1 / 255, std=(58.395,)), "0 to 0.0171"),
        (Normalization(scale=1 / 255, mean=TORCH.mean, std=(58.395,)), "-0.00831 to 0.0102"),
        (Normalization(scale=255.0), "0 to 6.5e+04"),
    ],
    ids=str,
)
def test_mixed_units_are_warned_of_with_the_values_that_the_model_gets(
    normalization, values, caplog
):
    in_memory(network(), ModelOptions(normalization=normalization))
    (warning,) = caplog.messages
    assert f"net gets values from {values} with {normalization}: " in warning


@pytest.mark.parametrize(
    "normalization",
    [
        CAFFE,
        TORCH,
        Normalization(scale=1 / 127.5, mean=(1.0,)),
        Normalization(scale=1 / 128, mean=(1.0,)),
        Normalization(scale=1 / 255),
        Normalization(std=(255.0,)),
        Normalization(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
        Normalization(mean=(127.5,), std=(127.5,)),
        Normalization(scale=1 / 255, mean=(0.1307,), std=(0.3081,)),
        Normalization(scale=1 / 255, mean=(0.5,), std=(0.5,)),
        Normalization(mean=CAFFE.mean, std=(1.0,)),
        Normalization(channels="bgr"),
    ],
    ids=str,
)
def test_usual_normalizations_are_not_warned_of(normalization, caplog):
    in_memory(network(), ModelOptions(normalization=normalization))
    assert caplog.messages == []


@pytest.mark.parametrize("value", [CAFFE, TORCH, Normalization(), Normalization(scale=0.3)])
def test_a_normalization_is_written_as_the_options_that_give_it(value):
    from cct_export.commands import program

    words = str(value).split()
    command = program.export.commands["tflite"]
    # Within the program: a command keeps the names of its help option.
    parent = program.export.make_context("cct-export", ["tflite"])
    given = command.make_context("tflite", [*words], parent=parent).params
    again = Normalization(
        (given["scale"] or (1.0,))[0],
        given["mean"] or (),
        given["std"] or (),
        given["channels"] or "rgb",
    )
    assert again == value
