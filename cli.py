"""Runs the commands from a checkout: `python cli.py export ...`, `python cli.py bench ...`."""

import sys

from cct_export.commands.program import bench_main, export_main

PROGRAMS = {"export": export_main, "bench": bench_main}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PROGRAMS:
        sys.exit("usage: python cli.py export|bench ...")
    PROGRAMS[sys.argv.pop(1)]()
