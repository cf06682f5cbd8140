"""Classifies images with the model in this folder.

python classify.py cat.jpg photos       image files, or all images in a folder
python classify.py --camera             takes a photo
python classify.py --watch photos       every image that is added to a folder, until stopped
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True  # the self-test refuses bytecode, which it cannot check

try:
    import numpy as np
    from model import Model
    from PIL import Image, ImageOps, UnidentifiedImageError
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed: .venv/bin/pip install -r requirements.txt")

# No other formats: Pillow hands some to a program, as EPS to Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
BITS_PER_SAMPLE = 258  # the tag of a TIFF
CAMERA_TIMEOUT_S = 60
POLL_S = 1.0


class Parser(argparse.ArgumentParser):
    """A parser whose errors quote arguments without what controls a terminal."""

    def error(self, message: str):
        """Prints what is wrong and ends the program."""
        super().error(printable(message))


def printable(text: str) -> str:
    """Returns text on one line, with ? for every character that controls a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def show(text: str, stream=None) -> None:
    """Prints a line at once, by default on standard output."""
    print(printable(text), file=stream, flush=True)


def read_pixels(file: Path | io.BytesIO, model: Model) -> np.ndarray:
    """Returns an image file as uint8 pixels of the model's shape: upright, grey or RGB, resized."""
    height, width, channels = model.shape
    with Image.open(file, formats=FORMATS) as image:
        if is_deep(image):
            raise ValueError("it has more than 8 bits per channel")
        upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
    if upright.size != (width, height):
        contract = model.description["input"]
        if contract["crop"]:
            upright = upright.crop(centre_box(*upright.size, width, height))
        if contract["antialias"]:
            upright = upright.resize((width, height), Image.Resampling.BILINEAR)
        else:
            return interpolated(np.asarray(upright, np.uint8), (height, width)).reshape(model.shape)
    return np.asarray(upright, np.uint8).reshape(model.shape)


def is_deep(image: Image.Image) -> bool:
    """Returns whether an image that is not decoded yet has more than 8 bits per channel."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))) > 8
    # Pillow has a mode of its own for 16 bits of grey only, and drops half of other bits.
    tiles = getattr(image, "tile", ())
    return image.mode.startswith(("I", "F")) or any(str(t[3]).endswith(";16B") for t in tiles)


def centre_box(from_width: int, from_height: int, width: int, height: int) -> tuple[int, ...]:
    """Returns left, top, right and bottom of the largest centred part of another aspect ratio."""
    columns = min(from_width, max(1, (2 * from_height * width + height) // (2 * height)))
    rows = min(from_height, max(1, (2 * from_width * height + width) // (2 * width)))
    left, top = (from_width - columns) // 2, (from_height - rows) // 2
    return left, top, left + columns, top + rows


def interpolated(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns pixels in another size, interpolated between the centres of the nearest four."""
    values = pixels
    for axis, count in enumerate(size):
        last = pixels.shape[axis] - 1
        centres = ((np.arange(count) + 0.5) * pixels.shape[axis] / count - 0.5).clip(0, last)
        low = centres.astype(int)
        share = (centres - low).reshape([-1 if i == axis else 1 for i in range(pixels.ndim)])
        high = np.minimum(low + 1, last)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return np.floor(values + 0.5).astype(np.uint8)


def classify(model: Model, pixels: np.ndarray, top: int) -> list[dict]:
    """Returns the ``top`` classes of an image with their probabilities, best first."""
    values = model.dequantize(model.run(model.prepare(pixels)))[0]
    scores = probabilities(values, model.description["output"]["activation"])
    labels = model.description["labels"]
    order = np.argsort(-scores)[:top]
    return [{"label": labels[i], "probability": float(scores[i])} for i in order]


def probabilities(values: np.ndarray, activation: str) -> np.ndarray:
    """Returns the probability of each class; a single value stands for the second of two."""
    if activation == "none" and len(values) > 1:
        exponentials = np.exp(values - values.max())
        return exponentials / exponentials.sum()
    if activation == "none":
        values = (1 + np.tanh(values / 2)) / 2  # a sigmoid that overflows for no logit
    return np.concatenate([1 - values, values]) if len(values) == 1 else values


def report(model: Model, name: str, file: Path | io.BytesIO, options) -> bool:
    """Prints the predictions for an image on one line; returns whether it could be read."""
    shown = name if name.isprintable() else ascii(name)
    try:
        pixels = read_pixels(file, model)
    except Exception as error:  # Pillow raises all kinds of exceptions for broken files
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, UnidentifiedImageError):
            reason = "it is no PNG, JPEG, WebP, BMP or TIFF with 8 bits per channel"
        show(f"{shown}: not a readable image: {reason}", sys.stderr)
        return False
    top = classify(model, pixels, options.top)
    text = ", ".join(f"{score['label']} {score['probability']:.1%}" for score in top)
    show(json.dumps({"image": name, "top": top}) if options.json else f"{shown}: {text}")
    return True


def take_photo() -> io.BytesIO:
    """Returns a JPEG from the camera, taken by Raspberry Pi OS's own program."""
    program = shutil.which("rpicam-still") or shutil.which("libcamera-still")
    if program is None:
        sys.exit("error: rpicam-still is not installed: sudo apt install rpicam-apps-lite")
    command = [program, "--nopreview", "--timeout", "1000", "--encoding", "jpg", "--output", "-"]
    try:
        process = subprocess.run(command, capture_output=True, timeout=CAMERA_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        sys.exit(f"error: {program} took over {CAMERA_TIMEOUT_S} s: is a camera connected?")
    if process.returncode:
        message = process.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        sys.exit(printable(f"error: {program} failed: {message}"))
    return io.BytesIO(process.stdout)


def images_in(folder: Path) -> dict[Path, tuple[int, int]]:
    """Returns size and modification time of every image file in ``folder``, by path."""
    versions = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            try:
                status = path.stat()
            except FileNotFoundError:  # deleted since it was listed
                continue
            if path.is_file():
                versions[path] = status.st_size, status.st_mtime_ns
    return versions


def watch(model: Model, folder: Path, options) -> None:
    """Reports every image in ``folder`` once, and again whenever it changes."""
    if not folder.is_dir():
        sys.exit(printable(f"error: there is no folder {folder}"))
    show(f"watching {folder}; Ctrl-C stops", sys.stderr)
    previous, reported = {}, {}
    while True:
        current = images_in(folder)
        for path, version in current.items():
            # Unchanged since the last poll, it is probably complete. If not, it will change.
            if version == previous.get(path) and version != reported.get(path):
                reported[path] = version
                report(model, path.name, path, options)
        reported = {path: version for path, version in reported.items() if path in current}
        previous = current
        time.sleep(POLL_S)


def main() -> int:
    """Runs the program; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):  # whatever their encoding is
        stream.reconfigure(errors="replace")
    parser = Parser(description="Classify images with the model in this folder.")
    parser.add_argument("images", nargs="*", type=Path, help="image files, or folders")
    parser.add_argument("--camera", action="store_true", help="take a photo and classify it")
    parser.add_argument(
        "--watch", type=Path, metavar="FOLDER", help="classify every image that is added to it"
    )
    parser.add_argument(
        "--top", type=int, default=5, metavar="N", help="classes per image (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show what the engine says when it starts"
    )
    options = parser.parse_args()
    if not (options.images or options.camera or options.watch):
        parser.error("name an image or a folder, or use --camera or --watch")
    if options.top < 1:
        parser.error(f"--top is {options.top}: it has to be 1 or more")
    model, all_readable = Model(verbose=options.verbose), True
    if options.camera:
        all_readable &= report(model, "camera", take_photo(), options)
    for path in options.images:
        files = list(images_in(path)) if path.is_dir() else [path]
        if not files:
            show(f"{path}: no image in this folder", sys.stderr)
            all_readable = False
        for file in files:
            all_readable &= report(model, str(file), file, options)
    if options.watch:
        watch(model, options.watch, options)
    return 0 if all_readable else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(printable(f"error: {error}"))
    except ModuleNotFoundError as error:  # the engine
        sys.exit(f"error: {error.name} is not installed: .venv/bin/pip install -r requirements.txt")
    except KeyboardInterrupt:
        sys.exit(130)
