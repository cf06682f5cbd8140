"""Writes docs/commands.md from the help of every command: `python docs/write_commands.py`."""

from collections.abc import Iterator
from pathlib import Path

import click

from cct_export.commands.program import bench, export

PAGE = Path(__file__).with_name("commands.md")


def page() -> str:
    """Returns the page."""
    parts = ["# Commands\n\nWhat `--help` prints. Options may be written with `_` for `-`.\n"]
    for name, program in (("cct-export", export), ("cct-bench", bench)):
        parts += _below(program, click.Context(program, info_name=name, **program.context_settings))
    return "\n".join(parts)


def _below(group: click.Group, context: click.Context) -> Iterator[str]:
    """Yields a section for every command of a group, and of the groups in it."""
    for command in group.list_commands(context):
        child = group.get_command(context, command)
        inner = click.Context(child, info_name=command, parent=context, terminal_width=96)
        if isinstance(child, click.Group):
            yield from _below(child, inner)
        else:
            yield f"## {inner.command_path}\n\n```text\n{child.get_help(inner)}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page())
