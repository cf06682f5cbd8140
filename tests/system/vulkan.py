"""Mesa's software Vulkan (lavapipe), fetched from Debian.

The stable release may have a Mesa that LiteRT refuses, so the archive's backports come first.
"""

import debian_archive

PACKAGES = ("mesa-vulkan-drivers", "libvulkan1")
NOWHERE = "/nowhere"


def environment(folder):
    """Returns the variables with which a child process finds lavapipe, fetched into ``folder``.

    Raises:
        debian_archive.Unavailable: no Debian, no network, no such package.
    """
    root = debian_archive.unpack(folder, *PACKAGES, backports=True)
    loaders = sorted(root.glob("usr/lib/*/libvulkan.so.1"))
    drivers = sorted(root.glob("usr/share/vulkan/icd.d/lvp_icd*.json"))
    if not (loaders and drivers):
        raise debian_archive.Unavailable("the packages hold no Vulkan loader, or no driver")
    return {
        "LD_LIBRARY_PATH": str(loaders[0].parent),
        "VK_ICD_FILENAMES": str(drivers[0]),
        "MESA_SHADER_CACHE_DIR": str(folder / "shaders"),  # compiling them takes most of the time
    }


def without():
    """Returns the variables with which a child process finds no Vulkan driver."""
    return {"LD_LIBRARY_PATH": NOWHERE, "VK_ICD_FILENAMES": NOWHERE, "VK_DRIVER_FILES": NOWHERE}
