"""Two benchmarks on one device share it, and say that their figures suffer from it."""

import subprocess
import sys

BENCH = "from cct_export.commands.program import bench_main; bench_main()"


def test_a_benchmark_beside_another_one_on_this_machine_warns_of_it(exports, in_process):
    path = exports("tflite").path
    command = [sys.executable, "-c", BENCH, "tflite", path, "--min-seconds", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as other:
        try:
            ended = in_process("bench", "tflite", path, "--min-seconds", 2, "--json", "-")
            assert other.poll() is None
        finally:
            other.terminate()
    assert ended.code == 0, ended.err
    (result,) = ended.record["results"]
    assert result["parity"]["passed"]
    assert any("other programs kept" in warning for warning in result["warnings"])
