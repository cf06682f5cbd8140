"""Data larger than memory: what a process needs while it reads batch by batch."""

import os
import subprocess
import sys

import numpy as np
import pytest
from shards import encoded, imagenet, write

IMAGES, SIZE, BATCH = 4000, 128, 64
ARRAY_BYTES = IMAGES * SIZE * SIZE * 3
# A batch is 3 MB, and every thread of the pool keeps what its allocator once had.
BOUND_BYTES = ARRAY_BYTES // 5

READ = """
import sys
import numpy as np
from cct_export import data
from cct_export.bench.memory import peak_rss_bytes
import PIL.Image, PIL.JpegImagePlugin, PIL.PngImagePlugin

name, size, batch, on_corrupt = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
before = peak_rss_bytes()
train = data.read(name, (size, size, 3), on_corrupt).train
order = np.random.default_rng(0).permutation(len(train.labels))
total = 0
for start in range(0, len(order), batch):
    total += len(train.images(order[start : start + batch]))
print(total, peak_rss_bytes() - before)
"""


def _pictures():
    """Returns a few JPEGs of some 10 KB, as photographs of this size have."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (8, SIZE // 4, SIZE // 4, 3), np.uint8)
    return [encoded(one.repeat(4, 0).repeat(4, 1), "JPEG", quality=85) for one in coarse]


def _folder(root):
    pictures = _pictures()
    for part, count in (("train", IMAGES), ("test", 8)):
        for label in range(4):
            (root / part / str(label)).mkdir(parents=True)
        for index in range(count):
            path = root / part / str(index % 4) / f"{index}.jpg"
            path.write_bytes(pictures[index % len(pictures)])


def _shards(root):
    records = [imagenet(picture, 1 + label) for label, picture in enumerate(_pictures())]
    for part, shards in (("train", 4), ("validation", 1)):
        for shard in range(shards):
            path = root / f"{part}-{shard:05}-of-{shards:05}"
            write(path, (records[index % 8] for index in range(IMAGES // 4)))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read as Linux tells it")
@pytest.mark.parametrize(("make", "on_corrupt"), [
    (_folder, "refuse"), (_shards, "refuse"), (_folder, "skip"),
])  # fmt: skip
def test_reading_in_batches_takes_a_fraction_of_the_memory_of_all_images(
    tmp_path, make, on_corrupt
):
    make(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path), str(SIZE), str(BATCH), on_corrupt],
        capture_output=True, text=True, env=dict(os.environ),
    )  # fmt: skip
    total, grown = map(int, done.stdout.split())
    print(f"{make.__name__} {on_corrupt}: {grown / 1e6:.1f} MB for {ARRAY_BYTES / 1e6:.0f} MB")
    assert total == IMAGES, done.stderr
    assert grown < BOUND_BYTES
