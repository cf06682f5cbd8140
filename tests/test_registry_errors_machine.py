"""Names in rooms, exit codes of errors, and what is told of the machine."""

import platform

import pytest

from cct_export import errors, machine, registry

ROOMS = (
    "cct_export.data.sources",
    "cct_export.formats",
    "cct_export.quantize",
    "cct_export.runtimes",
    "cct_export.commands.export",
    "cct_export.commands.bench",
)


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_a_room_can_be_loaded(room):
    names = registry.names(room)
    assert names == sorted(set(names))
    for name in names:
        # A word that Python keeps for itself, such as import, is a module import_.
        found = registry.load(room, name).__name__
        assert found.removesuffix("_") == f"{room}.{name.replace('-', '_')}"


@pytest.mark.parametrize("name", ["nothing", "", "..export", "os", "tflite.x"])
def test_a_name_that_is_not_in_the_room_is_a_key_error(name):
    with pytest.raises(KeyError):
        registry.load("cct_export.formats", name)


def test_an_underscore_in_a_module_is_a_hyphen_for_people(tmp_path, monkeypatch):
    room = tmp_path / "room"
    room.mkdir()
    (room / "__init__.py").write_text("")
    (room / "two_words.py").write_text("VALUE = 3")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.names("room") == ["two-words"]
    assert registry.load("room", "two-words").VALUE == 3


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_every_format_has_a_converter_a_quantizer_and_an_engine(format):
    from cct_export.runtimes import ENGINES

    assert format in registry.names("cct_export.formats")
    assert format in registry.names("cct_export.quantize.traced")
    assert ENGINES[format] in registry.names("cct_export.runtimes")


def _all_errors():
    return [
        error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.CCTExportError)
    ]


def test_every_error_is_in_the_tree_and_has_its_exit_code():
    codes = {error.__name__: error.exit_code for error in _all_errors()}
    assert codes == {
        "CCTExportError": 1,
        "MissingDependency": 6,
        "InvalidRequest": 2,
        "UnsupportedScheme": 2,
        "InvalidModel": 1,
        "InvalidArtifact": 1,
        "InvalidData": 1,
        "OutputError": 1,
        "ConversionError": 1,
        "ParityFailed": 3,
        "EngineFailed": 1,
        "NotAvailable": 6,
        "ConnectionLost": 6,
    }
    for name in codes:
        assert name in errors.__doc__


def test_a_missing_library_is_named_with_the_extra_that_brings_it():
    text = str(errors.MissingDependency.of("onnx", "onnx"))
    assert text == "onnx is not installed: pip install 'cct-export[onnx]' brings it"


def test_versions_leave_out_what_is_not_installed():
    import numpy as np

    found = machine.versions("numpy", "no-such-distribution-at-all")
    assert found == {"numpy": np.__version__}


def test_the_machine_is_described_by_what_the_system_tells():
    import os

    found = machine.describe()
    assert found["python"] == platform.python_version()
    assert found["architecture"] == platform.machine()
    assert found["os"].startswith(platform.system())
    assert 1 <= found["cores"] <= os.cpu_count()
    assert found["cpu"]
