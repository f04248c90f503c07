"""Names of tenants, keys and organisations: short, and safe in paths, log lines and tables."""

from __future__ import annotations

import re

from headgate.model.errors import InvalidRequest

_NAME = re.compile(r"[\w.\- ]{1,64}", re.ASCII)


def checked_name(name: str) -> str:
    """The name. Raises InvalidRequest."""
    if not _NAME.fullmatch(name) or name != name.strip():
        raise InvalidRequest(
            "A name has 1 to 64 letters, digits, `-`, `_`, `.` and spaces, none of them at an end.", param="name"
        )
    return name
