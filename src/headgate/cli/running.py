"""A running server, as a command asks it: one call to its management API.

What lies in a server's memory can only be shown and changed by the server itself, so a command that is about such things asks it
where one runs, and works on the data directory where none does.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping

import click

from headgate.model.chat import Json
from headgate.model.errors import GatewayError, Overloaded, Unauthenticated

SECONDS = 30.0

url_option = click.option(
    "--url",
    envvar="HEADGATE_URL",
    show_envvar=True,
    help="Where the server runs. Default: where the configuration lets it listen.",
)
key_option = click.option(
    "--admin-key", envvar="HEADGATE_ADMIN_KEY", show_envvar=True, help="The admin key of a running server."
)


def called(
    url: str,
    key: str | None,
    method: str,
    path: str,
    *,
    body: Json | None = None,
    query: Mapping[str, str] | None = None,
) -> Json:
    """The answer of a running server to one call. Raises Unauthenticated without a key, Overloaded when nobody answers, and the
    server's own words as GatewayError."""
    if not key:
        raise Unauthenticated("A server runs on this data directory: set HEADGATE_ADMIN_KEY so that it can be asked.")
    where = f"{url.rstrip('/')}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
    if not where.startswith(("http://", "https://")):
        raise click.BadParameter(f"{url!r} is no http:// address", param_hint="'--url'")
    sent = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(where, data=sent, method=method, headers=headers)  # noqa: S310 - http, as just seen
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:  # noqa: S310
            answer: Json = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        raise GatewayError(_words(error.read()) or f"{where} answered {error.code}.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Overloaded(f"The server at {url} does not answer: {reason}. Say where it is with --url.") from None


def _words(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""
