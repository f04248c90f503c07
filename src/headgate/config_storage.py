"""Where things are kept: the file or the database of what must not be lost, and the Redis that several processes share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, PlainSerializer, SecretStr, model_validator

from headgate.config_units import Duration, Section, problem

PROCESS_FILES = "headgate.db"
"""What a process's own files are called after where the ledger is no file."""


def masked(url: SecretStr) -> str:
    """A URL as it may be shown: without its password."""
    scheme, _, rest = url.get_secret_value().partition("?")[0].partition("://")
    user, at, where = rest.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{scheme}://{name}{colon}{'*' * 10 if colon else ''}{at}{where}"


StoreUrl = Annotated[SecretStr, PlainSerializer(masked)]


class StorageConfig(Section):
    """Where tenants, keys and the ledger are kept."""

    url: StoreUrl = Field(
        default=SecretStr("sqlite:///headgate.db"),
        description="`sqlite:///file` lies in the data directory, `sqlite:////file` is an absolute path; `postgresql://user@host/database`"
        " is shared by any number of processes (`headgate migrate` prepares it).",
    )
    pool: int = Field(default=10, description="Most connections of one process to PostgreSQL.", ge=2, le=1_000)
    spool: int = Field(
        default=10_000,
        description="Rows of the journal that a process keeps on its own disk while PostgreSQL cannot be reached; after that calls that"
        " are limited by a budget are refused.",
        ge=0,
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        url = self.url.get_secret_value()
        if url.startswith(("postgresql://", "postgres://")):
            if not _readable(url):
                raise problem(("url",), "must be a storage URL such as postgresql://user@host:5432/headgate")
            return self
        scheme, found, path = url.partition(":///")
        if scheme != "sqlite" or not found or path.endswith("/") or not path:
            raise problem(
                ("url",), "must be a storage URL such as sqlite:///headgate.db or postgresql://user@host/headgate"
            )
        return self

    @property
    def postgres(self) -> str | None:
        """The URL of the database; None where everything lies in files."""
        url = self.url.get_secret_value()
        return None if url.startswith("sqlite:") else url

    def path(self, directory: Path) -> Path:
        """The database file, given the data directory; with PostgreSQL, the name that the process's own files are made from."""
        url = self.url.get_secret_value()
        return directory / (PROCESS_FILES if self.postgres else url.partition(":///")[2])


class RedisConfig(Section):
    """The Redis that counters, the cache and flights are shared through."""

    url: StoreUrl = Field(
        description="`redis://[user:password@]host:6379/0`, or `rediss://` with TLS; of a cluster, any of its nodes."
    )
    cluster: bool = Field(default=False, description="Whether it is a cluster.")
    pool: int = Field(default=50, description="Most connections of one process.", ge=2, le=10_000)
    prefix: str = Field(
        default="headgate", description="What all keys begin with.", min_length=1, max_length=64, pattern=r"^[\w.:-]+$"
    )
    timeout: Duration = Field(default=1.0, description="How long an answer is waited for.", gt=0)
    evictable: bool = Field(
        default=False,
        description="Whether to start although this server may evict what budgets are counted with. What it then loses is rebuilt from"
        " the journal, and calls of tenants with a cap wait for that.",
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        url = self.url.get_secret_value()
        if not url.startswith(("redis://", "rediss://")) or not _readable(url):
            raise problem(("url",), "must be a URL such as redis://localhost:6379/0")
        return self


def _readable(url: str) -> bool:
    """Whether host and port of a URL can be read."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False
