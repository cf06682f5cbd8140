"""What these tests need of the system, fetched into temporary folders."""

import arm64 as emulated
import pytest
import vulkan as lavapipe
from debian_archive import Unavailable

ON_ARM64 = pytest.StashKey()


@pytest.fixture(scope="session")
def vulkan(tmp_path_factory):
    """The variables with which a child process finds a software Vulkan."""
    try:
        return lavapipe.environment(tmp_path_factory.mktemp("vulkan"))
    except Unavailable as error:
        pytest.skip(f"no software Vulkan: {error}")


@pytest.fixture(scope="session")
def arm64(tmp_path_factory):
    """An emulated machine; see ``arm64.Machine``."""
    try:
        return emulated.Machine(tmp_path_factory.mktemp("arm64"))
    except Unavailable as error:
        pytest.skip(f"no emulated arm64: {error}")


@pytest.fixture
def tell(request):
    """Adds a line to what is printed behind the tests."""
    return request.config.stash.setdefault(ON_ARM64, []).append


def pytest_terminal_summary(terminalreporter, config):
    """Prints what was seen on arm64."""
    lines = config.stash.get(ON_ARM64, [])
    if lines:
        terminalreporter.section("on arm64, emulated: this says nothing about speed")
        for line in lines:
            terminalreporter.write_line(line)
