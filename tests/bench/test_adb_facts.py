"""Facts parsed from the output of a phone's programs; composed by hand, nothing was recorded."""

from hypothesis import given
from hypothesis import strategies as st

from cct_export.bench.hosts.adb import facts
from cct_export.records import Conditions, MachineInfo

PROPERTIES = """[ro.product.manufacturer]: [Nobody]
[ro.product.model]: [Phone 3]
[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.board.platform]: [board]
"""
SOC = "[ro.soc.manufacturer]: [Maker]\n[ro.soc.model]: [S1000]\n"
MEMORY = "MemTotal:        7842108 kB\nMemFree: 1 kB\n"
CPU = "processor\t: 0\nFeatures\t: fp asimd asimddp fphp\nHardware\t: Old Board\n"
THERMAL = """IsStatusOverride: false
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=90.0, mType=0, mName=CPU0, mStatus=0}
Current temperatures from HAL:
\tTemperature{mValue=41.5, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=43.25, mType=0, mName=CPU1, mStatus=0}
\tTemperature{mValue=60.0, mType=3, mName=skin, mStatus=0}
"""
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  status: 2
  level: 81
  temperature: 275
"""


def test_a_new_phone_tells_its_chip():
    outputs = [PROPERTIES + SOC, "aarch64", "8", MEMORY, CPU, "schedutil"]
    assert facts.parse_machine(outputs) == MachineInfo(
        cpu="Maker S1000",
        isa=("asimd", "asimddp", "fphp"),
        architecture="aarch64",
        cores=8,
        memory_bytes=7842108 * 1024,
        os="Android 14 (API 34)",
        governor="schedutil",
        surroundings="bare",
        product="Nobody Phone 3",
    )


def test_an_old_phone_tells_its_board():
    assert facts.parse_machine([PROPERTIES, "aarch64", "8", MEMORY, CPU, ""]).cpu == "board"
    nameless = facts.parse_machine(["", "", "", "", CPU, ""])
    assert nameless.cpu == "Old Board"
    assert nameless.governor is nameless.cores is nameless.memory_bytes is None


def test_the_temperature_is_the_current_one_of_the_processor():
    conditions = facts.parse_conditions([THERMAL, BATTERY])
    assert conditions.temperature_c == 43.25
    assert conditions.thermal_status == 2
    assert conditions.battery_percent == 81
    assert conditions.battery_temperature_c == 27.5
    assert conditions.charging is True


def test_what_a_phone_does_not_tell_is_unknown():
    assert facts.parse_conditions(["", ""]) == Conditions()


@given(st.text(), st.text())
def test_any_output_is_parsed(first, second):
    facts.parse_conditions([first, second])
    facts.parse_machine([first, second] * 3)
