"""What these tests need of the system, fetched into temporary folders."""

import pytest
import vulkan as lavapipe
from debian_archive import Unavailable


@pytest.fixture(scope="session")
def vulkan(tmp_path_factory):
    """The variables with which a child process finds a software Vulkan."""
    try:
        return lavapipe.environment(tmp_path_factory.mktemp("vulkan"))
    except Unavailable as error:
        pytest.skip(f"no software Vulkan: {error}")
