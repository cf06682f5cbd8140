"""Classifies images with the model in this folder.

python classify.py cat.jpg photos       image files, or all that are in a folder
python classify.py --camera             a photo taken now
python classify.py --watch photos       every image that gets there, until it is stopped
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True  # the self-test knows every file of this folder

import numpy as np  # noqa: E402
from model import Model  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

SUFFIXES = (".png", ".jpg", ".jpeg")
CAMERA_S = 60
LOOK_S = 1.0


def read_pixels(file: Path | io.BytesIO, shape: tuple[int, int, int]) -> np.ndarray:
    """Returns a PNG or JPEG as uint8 ``shape``: upright, grey or RGB, resized bilinearly."""
    height, width, channels = shape
    with Image.open(file, formats=("PNG", "JPEG")) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError("it has more than 8 bits per channel")
        upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
    if upright.size != (width, height):
        upright = upright.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(upright, np.uint8).reshape(shape)


def classify(model: Model, pixels: np.ndarray, top: int) -> list[dict]:
    """Returns the best classes of an image with their probabilities, best first."""
    logits = model.logits(model.answer(model.prepare(pixels)))[0]
    shares = logits
    # A model that ends in a softmax gives probabilities already.
    if not ((logits >= 0).all() and np.isclose(logits.sum(), 1, atol=1e-2)):
        powers = np.exp(logits - logits.max())
        shares = powers / powers.sum()
    labels = model.contract["labels"]
    best = np.argsort(-shares)[:top]
    return [{"label": labels[i], "probability": float(shares[i])} for i in best]


def report(model: Model, name: str, file: Path | io.BytesIO, options) -> bool:
    """Prints a line about an image; tells whether it could be read."""
    shown = name if name.isprintable() else ascii(name)
    try:
        pixels = read_pixels(file, model.shape)
    except Exception as error:  # of a broken file Pillow raises anything
        print(f"{shown}: no readable image: {error}", file=sys.stderr, flush=True)
        return False
    found = classify(model, pixels, options.top)
    text = ", ".join(f"{one['label']} {one['probability']:.1%}" for one in found)
    line = json.dumps({"image": name, "top": found}) if options.json else f"{shown}: {text}"
    print(line, flush=True)
    return True


def take_photo() -> io.BytesIO:
    """Returns a JPEG from the camera, taken by the program that Raspberry Pi OS has for it."""
    program = shutil.which("rpicam-still") or shutil.which("libcamera-still")
    if program is None:
        sys.exit("error: there is no rpicam-still: sudo apt install rpicam-apps-lite")
    command = [program, "--nopreview", "--timeout", "1000", "--encoding", "jpg", "--output", "-"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=CAMERA_S)
    except subprocess.TimeoutExpired:
        sys.exit(f"error: {program} took over {CAMERA_S} s: is a camera connected?")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        sys.exit(f"error: {program} failed: {said}")
    return io.BytesIO(done.stdout)


def images_in(folder: Path) -> dict[Path, tuple[int, int]]:
    """Returns size and time of change of every image file in ``folder``, by path."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            try:
                status = path.stat()
            except FileNotFoundError:  # gone since it was listed
                continue
            if path.is_file():
                found[path] = status.st_size, status.st_mtime_ns
    return found


def watch(model: Model, folder: Path, options) -> None:
    """Reports every image in ``folder`` once; one that is written again is a new one."""
    before, done = {}, {}
    while True:
        now = images_in(folder)
        for path, status in now.items():
            # Unchanged since the last look, it is probably complete. If not, it will change.
            if status == before.get(path) and status != done.get(path):
                done[path] = status
                report(model, path.name, path, options)
        done = {path: status for path, status in done.items() if path in now}
        before = now
        time.sleep(LOOK_S)


def main() -> int:
    """Runs the program; returns its exit code."""
    parser = argparse.ArgumentParser(description="Classify images with the model in this folder.")
    parser.add_argument("images", nargs="*", type=Path, help="PNG or JPEG files, or folders")
    parser.add_argument("--camera", action="store_true", help="take a photo and classify it")
    parser.add_argument("--watch", type=Path, metavar="FOLDER", help="classify what gets there")
    parser.add_argument("--top", type=int, default=5, help="classes per image (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    options = parser.parse_args()
    if not (options.images or options.camera or options.watch):
        parser.error("name an image or a folder, or use --camera or --watch")
    if options.top < 1:
        parser.error(f"--top is {options.top}: it has to be 1 or more")
    model, good = Model(), True
    if options.camera:
        good &= report(model, "camera", take_photo(), options)
    for path in options.images:
        for file in images_in(path) if path.is_dir() else [path]:
            good &= report(model, str(file), file, options)
    if options.watch:
        watch(model, options.watch, options)
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
