"""The texts of which a bundle is made: real files, below ``cct_export/bundles/texts``."""

from importlib import resources
from importlib.resources.abc import Traversable

from cct_export.bundles.contents import Contents, Files


def texts(target: str, **words: str) -> Files:
    """Returns the texts for a target, by path below the bundle.

    Args:
        target: a folder below ``texts``.
        words: what to put for a marker, in texts and paths: ``name`` stands for ``BUNDLE_NAME``.
    """
    found: Files = {}
    _collect(resources.files("cct_export.bundles") / "texts" / target, "", found)
    for word, value in words.items():
        marker = f"BUNDLE_{word.upper()}"
        found = {
            path.replace(marker, value): content.replace(marker.encode(), value.encode())
            for path, content in found.items()
        }
    return found


def summary(contents: Contents) -> str:
    """Returns a sentence for a README: what the model takes and gives."""
    height, width, channels = contents.golden.images.shape[1:]
    scheme, classes = contents.artifact.scheme, contents.golden.logits.shape[1]
    return (
        f"`{contents.model_file}` ({len(contents.model):,} bytes, scheme `{scheme}`) takes "
        f"{'RGB' if channels == 3 else 'grey'} images of {height} × {width} pixels as "
        f"{contents.inputs.dtype}, and gives the logits of {classes} classes as "
        f"{contents.outputs.dtype}."
    )


def _collect(folder: Traversable, path: str, found: Files) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _collect(entry, f"{path}{entry.name}/", found)
        else:
            found[path + entry.name] = entry.read_bytes()
