"""The command line, run in this process, in an empty working directory and with an empty environment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headgate.budget.budget import Entry, Hold, Scope
from headgate.budget.sqlite import SqliteLedger
from headgate.budget.windows import window_id
from headgate.cli.main import main
from headgate.model.money import Usage
from headgate.model.tenancy import WINDOWS

UNSET = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HEADGATE_DATA", "HEADGATE_ADMIN_KEY", "HEADGATE_SECRET")

Headgate = Callable[..., Result]
NOON = 1_795_176_000.0
"""2026-11-20T12:00:00Z"""


@pytest.fixture
def headgate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Headgate:
    """Runs one command line and checks its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str, code: int = 0, env: dict[str, str] | None = None) -> Result:
        outcome = CliRunner().invoke(
            main, list(args), env={**dict.fromkeys(UNSET), **(env or {})}, prog_name="headgate"
        )
        assert outcome.exit_code == code, outcome.output
        return outcome

    return run


def printed(outcome: Result) -> Any:
    """What a command with --json printed."""
    return json.loads(outcome.stdout)


def spend(path: Path, tenant: str, amount: int, *, at: float = NOON, model: str = "gpt-4o-mini", id: str = "a") -> None:
    """Write one settled call into the ledger at `path`, as a server would."""

    async def call() -> None:
        ledger = SqliteLedger(path, now=lambda: at)
        scopes = tuple(Scope(f"tenant:{tenant}", window_id(window, at)) for window in WINDOWS)
        usage = Usage(prompt_tokens=100, completion_tokens=50)
        entry = Entry(
            tenant=tenant,
            key="key_1",
            user="ann",
            route="auto",
            model=model,
            deployment=model,
            amount=amount,
            usage=usage,
        )
        await ledger.reserve(Hold(id=id, scopes=scopes, amount=amount, least=amount, lease=60.0, entry=entry))
        await ledger.dispatched(id)
        ledger.settle(id, [entry])
        ledger.note(f"{id}-hit", Entry(tenant=tenant, model=model, source="exact", saved=amount, usage=usage))
        await ledger.close()

    asyncio.run(call())
