"""Writes docs/commands.md from the help of every command: `python docs/write_commands.py`."""

from pathlib import Path

import click

from cct_export.commands.program import bench, export

PAGE = Path(__file__).with_name("commands.md")


def page() -> str:
    """Returns the page."""
    parts = ["# Commands\n\nWhat `--help` prints. Options may be written with `_` for `-`.\n"]
    for name, program in (("cct-export", export), ("cct-bench", bench)):
        context = click.Context(program, info_name=name, **program.context_settings)
        for command in program.list_commands(context):
            child = program.get_command(context, command)
            inner = click.Context(child, info_name=command, parent=context, terminal_width=96)
            parts.append(f"## {name} {command}\n\n```text\n{child.get_help(inner)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
