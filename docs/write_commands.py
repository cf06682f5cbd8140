"""Writes docs/commands.md from the help of every command: `python docs/write_commands.py`."""

from collections.abc import Iterator
from pathlib import Path

import click

from cct_export.commands.program import bench, export

PAGE = Path(__file__).with_name("commands.md")


def page() -> str:
    """Returns the page."""
    sections = ["# Commands\n\nThe output of `--help`. Options may be written with `_` for `-`.\n"]
    for name, program in (("cct-export", export), ("cct-bench", bench)):
        sections += _sections(
            program, click.Context(program, info_name=name, **program.context_settings)
        )
    return "\n".join(sections)


def _sections(group: click.Group, context: click.Context) -> Iterator[str]:
    """Yields a section for every command of a group, and of the groups in it."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = click.Context(command, info_name=name, parent=context, terminal_width=96)
        if isinstance(command, click.Group):
            yield from _sections(command, inner)
        else:
            yield f"## {inner.command_path}\n\n```text\n{command.get_help(inner)}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page())
