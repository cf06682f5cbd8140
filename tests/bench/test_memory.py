"""Peak memory is that of the process itself."""

import json
import subprocess
import sys

import pytest

PARENT = """
import json, subprocess, sys
import numpy
from cct_export.bench.memory import peak_rss_bytes
own = peak_rss_bytes()
ballast = numpy.ones(400_000_000, numpy.uint8)
child = "from cct_export.bench.memory import peak_rss_bytes; print(peak_rss_bytes())"
told = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
print(json.dumps([own, peak_rss_bytes(), int(told.stdout)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is of Linux")
def test_a_child_does_not_inherit_the_peak_of_a_large_parent():
    done = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True)
    before, after, child = json.loads(done.stdout)
    assert after - before >= 390_000_000
    assert 1_000_000 < child < 100_000_000
