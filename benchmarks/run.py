"""Compares the files of cct-export with those of the stock converters, and publishes the figures.

``python benchmarks/run.py --data DATA`` writes results.json and results.md below results/;
``--write README.md`` refreshes the figures that stand between markers in a page.
"""

import logging
import os
import re
import shlex
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import click
import record
from record import Accuracy, MatmulRate, MeasuredFile, Parity, Results

from cct_export.errors import CCTExportError, InvalidArtifact
from cct_export.specs import DEFAULT_MODEL, PARITY_SAMPLES

log = logging.getLogger("benchmarks")
LIBRARIES = (
    "tensorflow", "keras", "ai-edge-litert", "ai-edge-quantizer", "onnx", "onnxruntime", "tf2onnx",
)  # fmt: skip
# The matrix product whose rate is the compute roof, and how often it is timed.
MATMUL_SIZE = 768
MATMUL_RUNS = 15
MATMUL_WARMUP = 3


class Numbers(click.ParamType):
    """Positive numbers with commas between, such as ``1,2``."""

    name = "numbers"

    def convert(self, value: object, param: object, ctx: object) -> tuple[int, ...]:
        """Returns the numbers."""
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", str(value)):
            self.fail(f"{value!r} is not a list of numbers such as 1,2", param, ctx)
        return tuple(int(part) for part in str(value).split(","))


@click.command()
@click.option("--data", help="Images: cifar10, digits, a folder or an .npz.")
@click.option("--model", default=DEFAULT_MODEL, help="A preset, .keras, .weights.h5 or run.")
@click.option("--out", type=click.Path(path_type=Path), help="By default results/MACHINE/MODEL.")
@click.option("--threads", type=Numbers(), default="1,2", help="Thread counts to time with.")
@click.option("--rounds", type=click.IntRange(1), default=60, help="Rounds of 20 runs each.")
@click.option(
    "--images", type=click.IntRange(1), default=PARITY_SAMPLES, help="Test images for parity."
)
@click.option("--schemes", default="", help="Only these, as none,int8, and their baselines.")
@click.option(
    "--write", "pages", multiple=True, metavar="PAGE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Refresh the figures of this page; without --data nothing is measured.",
)  # fmt: skip
def main(data: str | None, out: Path | None, pages: tuple[Path, ...], **options: object) -> None:
    """Compare cct-export with the stock converters, from the same weights, in one run."""
    import tables

    logging.basicConfig(format="%(message)s", level=logging.INFO)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if data is None and not pages:
        raise click.UsageError("name the images with --data, or a page with --write")
    try:
        if data is not None:
            results = measure(data, **options)
            folder = out or record.RESULTS / slug(results.machine.cpu) / results.model
            folder.mkdir(parents=True, exist_ok=True)
            record.write(results, folder)
            (folder / "results.md").write_text(tables.results_page(results))
            click.echo(f"wrote {folder}")
        for page in pages:
            tables.refresh(page)
            click.echo(f"wrote {page}")
    except CCTExportError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None


def slug(cpu: str) -> str:
    """Returns a processor's name as that of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")


def measure(
    data: str, *, model: str, threads: tuple[int, ...], rounds: int, images: int, schemes: str
) -> Results:
    """Makes, verifies and times every file.

    Args:
        data: images, as the commands take them.
        model: what the commands take as MODEL.
        threads: thread counts to time with.
        rounds: rounds of every file.
        images: test images for parity.
        schemes: of cct-export, with commas between; all if empty.
    """
    import conversions

    import cct_export
    from cct_export import machine

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files: dict[Path, MeasuredFile] = {}
        names = [part for part in schemes.split(",") if part]
        for conversion in conversions.conversions(model, data, folder, names):
            path = conversion.path(folder)
            file = make(conversion, path)
            files[path] = file if file.error else verify(file, path, model, data, images)
        roofline = {count: time_files(files, count, rounds) for count in threads}
        architecture = cct_export.inspect_model(cct_export.load(model))
        return Results(
            command=shlex.join(["python", "benchmarks/run.py", *without_folders(sys.argv[1:])]),
            model=Path(model).name,
            parameters=architecture.trainable + architecture.fixed,
            data=Path(data).name,
            machine=machine.describe(),
            versions=machine.versions(*LIBRARIES),
            parity_images=images,
            cold_export_s=conversions.cold_export_s(model, folder),
            roofline=roofline,
            files=tuple(files.values()),
        )


def without_folders(arguments: list[str]) -> list[str]:
    """Returns the arguments without the folders above the files they name."""
    return [argument.rstrip("/").rpartition("/")[2] for argument in arguments]


def make(conversion: object, path: Path) -> MeasuredFile:
    """Makes the file of a ``Conversion``; a converter's exception becomes ``error``."""
    log.info("converting %s", conversion.name)
    file = MeasuredFile(
        conversion.name, conversion.format, conversion.precision, conversion.baseline
    )
    start = time.perf_counter()
    try:
        conversion.convert(path)
    except Exception as error:  # whatever a stock converter raises is its result
        file = replace(file, error=_one_line(error))
    size = path.stat().st_size if path.is_file() else None
    return replace(file, export_s=time.perf_counter() - start, size_bytes=size)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def verify(file: MeasuredFile, path: Path, model: str, data: str, images: int) -> MeasuredFile:
    """Adds parity, accuracy and multiply-accumulates, or why the file does not run."""
    import cct_export

    log.info("verifying %s", file.name)
    try:
        parity = cct_export.verify(path, against=model, data=data, samples=images, scheme="none")
    except InvalidArtifact as error:
        message = _one_line(error).replace(str(path.parent) + os.sep, "")
        return replace(file, error=message)
    (result,) = cct_export.benchmark(
        file.format, sources=path, data=data, accuracy=True, min_runs=1, min_s=0, warmup_s=0
    )
    accuracy = asdict(result.accuracy)
    inspection = cct_export.inspect(path)
    return replace(
        file,
        parity=Parity(parity.sqnr_db, parity.max_abs, parity.top1_agreement, parity.samples),
        # Without the confusions, which are megabytes for a thousand classes.
        accuracy=Accuracy(**{name: accuracy[name] for name in Accuracy.__annotations__}),
        macs=inspection.macs,
        delegated=(inspection.delegated, inspection.nodes),
        partitions=inspection.partitions,
    )


def time_files(files: dict[Path, MeasuredFile], threads: int, rounds: int) -> MatmulRate:
    """Times all files interleaved, and adds the times to their records.

    Returns:
        The rate of a matrix product, the better of before and after.
    """
    import cct_export

    paths = [path for path, file in files.items() if not file.error]
    log.info("timing %d files, %d threads", len(paths), threads)
    before = matmul_rate(threads)
    times = cct_export.time_together(paths, threads=threads, rounds=rounds)
    after = matmul_rate(threads)
    for path, runs in zip(paths, times, strict=True):
        file = files[path]
        files[path] = replace(file, times_ns={**file.times_ns, threads: tuple(runs)})
    return MatmulRate(max(before.float32, after.float32), max(before.int8, after.int8))


def matmul_rate(threads: int) -> MatmulRate:
    """Measures ONNX Runtime's matrix product, the fastest for both types that is installed."""
    return MatmulRate(
        *(MATMUL_SIZE**3 / _matmul_s(precision, threads) for precision in ("float32", "int8"))
    )


def _matmul_s(precision: str, threads: int) -> float:
    """Returns the median time of one product."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    shape = (MATMUL_SIZE, MATMUL_SIZE)
    if precision == "float32":
        kind, types = "MatMul", (TensorProto.FLOAT, TensorProto.FLOAT)
        left, right = (random.normal(size=shape).astype(np.float32) for _ in range(2))
    else:
        kind, types = "MatMulInteger", (TensorProto.UINT8, TensorProto.INT32)
        left = random.integers(0, 256, shape, np.uint8)
        right = random.integers(-128, 128, shape, np.int8)
    graph = helper.make_graph(
        [helper.make_node(kind, ["a", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", types[0], shape)],
        [helper.make_tensor_value_info("y", types[1], shape)],
        [numpy_helper.from_array(right, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    times = []
    for _ in range(MATMUL_RUNS):
        start = time.perf_counter()
        session.run(None, {"a": left})
        times.append(time.perf_counter() - start)
    return statistics.median(times[MATMUL_WARMUP:])


if __name__ == "__main__":
    main()
