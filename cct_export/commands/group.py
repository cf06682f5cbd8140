"""A group of commands whose errors are one line: what is wrong, and what to type instead."""

import contextlib
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from cct_export.commands import messages, signals
from cct_export.commands.options import ExitCode
from cct_export.errors import InvalidRequest
from cct_export.model import presets
from cct_export.names import choose, closest, find
from cct_export.streams import clean_streams
from cct_export.text import one_line


class Group(click.Group):
    """A group of commands whose errors are one line and an exit code.

    Args:
        *args: passed to ``click.Group``.
        command_for: the command that takes a file, by the file's suffix.
        model_command: the command that takes any other model.
        **kwargs: passed to ``click.Group``.
    """

    def __init__(
        self,
        *args: Any,
        command_for: Mapping[str, str] = {},
        model_command: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._command_for = command_for
        self._model_command = model_command

    def main(self, *arguments: Any, **options: Any) -> NoReturn:
        """Runs a command line, and ends the process with its exit code."""
        with clean_streams():
            exit_code = self._main(*arguments, **options)
            _flush_or_discard()
        sys.exit(signals.exit_code() or exit_code)

    def _main(self, *arguments: Any, **options: Any) -> int:
        try:
            exit_code: int = super().main(*arguments, **{**options, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            exit_code = error.exit_code
        except click.ClickException as error:
            messages.say_error(f"error: {_usage_message(error)}")
            exit_code = error.exit_code
        except click.Abort:
            exit_code = ExitCode.INTERRUPTED
        except OSError as error:  # help that cannot be written
            exit_code = messages.report(error)
        return exit_code

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Parses a command line; prints help and version."""
        with _output_may_close():
            return super().make_context(*arguments, **options)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Returns the command that the first argument names; refuses other words."""
        word = args[0]
        if not word.startswith("-") and not ctx.resilient_parsing:
            args = [self._choose_command(word, ctx.command_path), *args[1:]]
        return super().resolve_command(ctx, args)

    def _choose_command(self, word: str, program: str) -> str:
        path = Path(word)
        command = self._command_for.get(path.suffix)
        if word and (path.exists() or find(word, presets.MODELS)):
            command = command or self._model_command
        if command and not find(word, self.commands):
            raise InvalidRequest(
                f"{word} is no command: type `{program} {command} {shlex.quote(word)}`"
            )
        return choose(word, self.commands, what="command")

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; an error becomes one line and an exit code."""
        with _output_may_close():
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except KeyboardInterrupt:
            messages.say_error("interrupted")
            ctx.exit(ExitCode.INTERRUPTED)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if (exit_code := signals.exit_code()) is not None:
                ctx.exit(exit_code)
            if logging.getLogger("cct_export").isEnabledFor(logging.DEBUG):
                traceback.print_exc()
            ctx.exit(messages.report(error))


def _usage_message(error: click.ClickException) -> str:
    """Returns what click found wrong with a command line, as one line that says what to do."""
    context = getattr(error, "ctx", None)
    if context is None:
        return one_line(error.format_message())
    help = f"`{context.command_path} --help` lists "
    if isinstance(error, click.NoSuchOption):
        parameters = context.command.get_params(context)
        names = [name[2:] for each in parameters for name in each.opts if name.startswith("--")]
        close = closest(error.option_name.lstrip("-"), names)
        hint = f"did you mean --{close}? ({help}all)" if close else f"{help}the options"
        return one_line(f"no option is called {error.option_name!r}: {hint}")
    message = one_line(error.format_message()).removesuffix(".")
    return f"{message[0].lower()}{message[1:]}; {help}arguments and options"


@contextlib.contextmanager
def _output_may_close() -> Iterator[None]:
    """Ends a command quietly whose reader, such as head, has read enough."""
    try:
        yield
    except (BrokenPipeError, SystemExit) as error:
        # rich ends the program where it cannot write.
        if BrokenPipeError not in (type(error), type(error.__context__)):
            raise
        _discard(sys.stdout, sys.stderr)
        raise click.exceptions.Exit(ExitCode.OUTPUT_CLOSED) from None


def _flush_or_discard() -> None:
    """Writes what standard output still keeps, which fails again where its disk is full."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard(sys.stdout)


def _discard(*streams: TextIO) -> None:
    """Lets nothing be written any more: at its end Python writes what it has kept."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(null, stream.fileno())
