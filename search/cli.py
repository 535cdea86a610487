"""The program ``cifar-search``: its commands, and how a mistake or Ctrl-C ends it."""

from __future__ import annotations

import sys
from typing import Any

import typer

from search.commands import look, model, repeat, report, upkeep
from search.commands.dashboard import dashboard
from search.commands.effects import effects
from search.commands.run import run
from search.commands.worker import worker
from search.interrupts import EXIT_CODE
from search.memory import shortage_line
from search.options import check_words
from search.output import OutputLost, complain, is_gone_reader, open_streams

COMMANDS = (
    run,
    worker,
    upkeep.stop,
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
    upkeep.rename,
    upkeep.delete,
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
    open_streams()
    try:
        check_words(sys.argv[1:])
        code = app(standalone_mode=False)
        if code == EXIT_CODE:  # typer's answer to Ctrl-C, without a word
            raise KeyboardInterrupt
        sys.stdout.flush()
        sys.exit(code)
    except USAGE_ERROR as error:
        _refuse(error.format_message())
    except ValueError as error:
        _refuse(str(error))
    except (MemoryError, RuntimeError) as error:
        _end_if_short_of_memory(error)
        raise
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(EXIT_CODE)
    except OutputLost as error:
        if not is_gone_reader(error):
            complain(f"cannot write: {error.strerror}")
        sys.exit(1)


def _refuse(message: str) -> None:
    complain(" ".join(message.split()))
    sys.exit(2)


def _end_if_short_of_memory(error: BaseException) -> None:
    from search.training.shortage import is_shortage

    if is_shortage(error):
        complain(shortage_line(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
