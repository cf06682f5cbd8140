"""Runs the commands from a checkout: `python cli.py export ...`, `python cli.py bench ...`."""

import sys

from cct_export.commands.program import bench, export

PROGRAMS = {"export": export, "bench": bench}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PROGRAMS:
        sys.exit("usage: python cli.py export|bench ...")
    name = sys.argv.pop(1)
    sys.exit(PROGRAMS[name](prog_name=f"cct-{name}"))
