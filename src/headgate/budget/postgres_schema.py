"""The steps of the journal's tables and functions in PostgreSQL, which `journal_1.sql` and its like describe."""

from __future__ import annotations

from pathlib import Path

from headgate.storage.postgres import Step

SCHEMA: tuple[Step, ...] = (((Path(__file__).parent / "journal_1.sql").read_text(),),)
"""The steps of the room `budget`."""

LOCK = 4_848_002
"""Who writes rows, or begins an epoch, holds this advisory lock until its transaction is committed."""

COLUMNS = (
    'id, kind, attempt, at, tenant, key, "user", feature, route, model, deployment, source, amount, billed, saved, prompt_tokens,'
    " completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, estimated, scopes, prices, detail"
)
"""What a row says, in the order of its checksum."""

SPENDING = "kind IN ('charge', 'settle', 'lost', 'note')"
RARE = "kind IN ('lost', 'seed', 'change', 'price', 'alert')"
"""Have indexes of their own, which are used for a query that says just this."""
