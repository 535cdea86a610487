"""The program ``cifar-search``: its commands, and how a mistake or Ctrl-C ends it."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from search.commands import look, model, repeat, report
from search.commands.dashboard import dashboard
from search.commands.effects import effects
from search.commands.run import run
from search.commands.worker import worker
from search.interrupts import EXIT_CODE
from search.options import check_words

COMMANDS = (
    run,
    worker,
    look.spaces,
    look.data,
    look.studies,
    look.show,
    repeat.confirm,
    repeat.ablate,
    effects,
    model.export,
    model.retrain,
    model.verify,
    model.predict,
    report.report,
    report.note,
    dashboard,
)
"""In the order in which the help lists them."""
USAGE_ERROR: Any = typer.BadParameter.__base__
"""Whatever is wrong with the words of a command; typer does not export it."""

app = typer.Typer(
    help="Search for the settings of small image classifiers, and get an answer that can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run a command; a user's mistake is one line and exit code 2."""
    try:
        check_words(sys.argv[1:])
        code = app(standalone_mode=False)
        if code == EXIT_CODE:  # typer's answer to Ctrl-C, without a word
            raise KeyboardInterrupt
        sys.exit(code)
    except USAGE_ERROR as error:
        _refuse(error.format_message())
    except ValueError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        typer.echo("cifar-search: interrupted", err=True)
        sys.exit(EXIT_CODE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _refuse(message: str) -> None:
    typer.echo(f"cifar-search: {' '.join(message.split())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
