"""The comparison of forms of GELU in integers, on a small model."""

import sys
from pathlib import Path

from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gelu


def test_every_form_is_a_file_and_the_exact_one_loses_least(digits_run):
    arguments = ["--data", "digits", "--model", str(digits_run), "--images", "64"]
    done = CliRunner().invoke(gelu.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = [line.split(" | ") for line in done.output.splitlines()[2:]]
    ratios = {name: float(ratio.removesuffix(" |")) for _, name, ratio in rows}
    assert ratios.keys() == gelu.FORMS.keys()
    exact, *others = ratios.values()
    assert exact > 20
    assert exact > max(others)
