"""Exit codes of errors, and what is told of the machine."""

import platform

from cct_export import errors, machine
from cct_export.commands import messages


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

    machine_info = machine.describe()
    assert machine_info.python == platform.python_version()
    assert machine_info.architecture == platform.machine()
    assert machine_info.os.startswith(platform.system())
    assert 1 <= machine_info.cores <= os.cpu_count()
    assert machine_info.cpu


def test_lack_of_memory_in_tensorflow_is_told_as_any_other(capsys):
    class ResourceExhaustedError(Exception):
        pass

    for error in (MemoryError(), ResourceExhaustedError("OOM when allocating tensor")):
        assert messages.report(error) == 1
        assert capsys.readouterr().err.startswith("error: there is not enough memory")
