"""The command that serves the dashboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from search.interrupts import Interrupts
from search.options import DEFAULT_STORAGE, Storage, whole
from search.output import goes_on_unheard, say


@goes_on_unheard
def dashboard(
    storage: Storage = DEFAULT_STORAGE,
    port: Annotated[
        int | None,
        typer.Option(parser=whole(1, 65_535), metavar="N", help="Port to listen on.  [a free one]"),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only", help="Write nothing: no notes, pictures or figures, and nobody can edit."
        ),
    ] = False,
    artifacts: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the artifacts.  [FILE.artifacts beside SQLite's FILE, else the user's data]",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; any but this machine's own asks for --allow-network.",
        ),
    ] = "127.0.0.1",
    allow_network: Annotated[
        bool,
        typer.Option("--allow-network", help="Let other machines in: there is no login."),
    ] = False,
) -> None:
    """Serve optuna-dashboard on a database, with our notes, pictures and figures, until Ctrl-C."""
    interrupts = Interrupts()
    from search.dashboard.server import DashboardRequest, run_dashboard

    request = DashboardRequest(storage, host, port or 0, allow_network, artifacts, read_only, open_browser)
    sys.exit(run_dashboard(request, interrupts, say))
