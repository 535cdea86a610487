"""What stands between a browser and optuna-dashboard, which has no login and checks nothing itself.

A page of another site must not reach it: neither by a host name of its own that leads to this machine (DNS
rebinding), nor by sending a form or a script's request across sites, nor through an artifact that is a page.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_READING = ("GET", "HEAD", "OPTIONS")
_ALWAYS = (("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "SAMEORIGIN"))
_SANDBOX = (
    "Content-Security-Policy",
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'",
)
"""For artifacts, which can be pages: no scripts, no forms, an origin of their own."""
_DROPPED = "access-control-allow-origin"
"""Of artifacts: optuna-dashboard lets every site read them."""


class Guard:
    """A WSGI application around optuna-dashboard's."""

    def __init__(self, app: WSGIApplication, names: Iterable[str], read_only: bool) -> None:
        """Guard an application.

        Args:
            app: the application.
            names: host names by which it may be called, besides localhost. An address in digits is always
                let through: what is to be kept out comes by a name.
            read_only: refuse every request that could change something.
        """
        self._app = app
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}
        self._read_only = read_only

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, or refuse it with status 403 and the reason."""
        reason = self._refusal(environ)
        if reason:
            body = json.dumps({"reason": reason}).encode()
            kind = ("Content-Type", "application/json")
            start_response("403 Forbidden", [kind, ("Content-Length", str(len(body))), *_ALWAYS])
            return [body]
        artifact = "/artifacts/" in environ.get("PATH_INFO", "")

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if artifact:
                headers = [pair for pair in headers if pair[0].lower() != _DROPPED] + [_SANDBOX]
            return start_response(status, [*headers, *_ALWAYS], exc_info)

        return self._app(environ, start)

    def _refusal(self, environ: WSGIEnvironment) -> str | None:
        host = environ.get("HTTP_HOST", "")
        if not self._is_ours(host):
            return f"this dashboard is not served under the name {host!r}"
        if environ["REQUEST_METHOD"] in _READING:
            return None
        if self._read_only:
            return "this dashboard only reads"
        return None if _is_same_site(environ, host) else "the request comes from a page of another site"

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return name in self._names or is_address(name)


def _is_same_site(environ: WSGIEnvironment, host: str) -> bool:
    """Browsers name the page that a changing request comes from; what names none is no browser."""
    origin = environ.get("HTTP_ORIGIN")
    if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
        return False
    return origin is None or origin.partition("://")[2].lower() == host.lower()


def is_address(name: str) -> bool:
    """Whether a host is written as an IP address, without brackets."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_this_machine_only(host: str) -> bool:
    """Whether a server on this address is reached from this machine alone."""
    return host.lower() == "localhost" or (is_address(host) and ip_address(host).is_loopback)


def is_everywhere(host: str) -> bool:
    """Whether a server on this address listens on all of the machine's addresses."""
    return is_address(host) and ip_address(host).is_unspecified


def names_of_machine(host: str) -> set[str]:
    """The names under which a server that listens on ``host`` may be called."""
    if is_this_machine_only(host):
        return set()
    return {host, socket.gethostname(), socket.getfqdn()}


def as_in_url(host: str) -> str:
    """A host as a URL writes it: an IPv6 address in brackets; this machine's name for all addresses."""
    if is_everywhere(host):
        return socket.gethostname()
    return host if not is_address(host) or isinstance(ip_address(host), IPv4Address) else f"[{host}]"
