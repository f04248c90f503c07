"""The demo's setting: two simulated models at list prices, a gateway in front of them, four tenants."""

from __future__ import annotations

from typing import Any

from headgate.demo.trace import BUDGET_TENANT

CHEAP, RICH = "gpt-4o-mini", "gpt-4o"
PRICES = {CHEAP: ("0.15", "0.60"), RICH: ("2.50", "10.00")}
"""USD for a million prompt and completion tokens, as listed for these models; here they are played by the simulator."""

LATENCY_MS = {CHEAP: 120, RICH: 250}
TOKENS_PER_SECOND = {CHEAP: 400, RICH: 250}

BUDGET_USD = "0.12"
"""An hour's budget of the tenant that is to run into it."""

OUTAGE_SECONDS = 2.0
"""For so long the cheap provider's port is closed in the middle of the trace."""

CONCURRENCY = 256


def config(urls: dict[str, str]) -> dict[str, Any]:
    """The gateway's configuration; `urls` by model. What the simulator answers to two wordings of a question has nothing in common, so
    nothing is learnt from comparing answers: the semantic cache shows what it does in its first minute."""
    return {
        "providers": {
            "cheap": {"kind": "openai", "base_url": f"{urls[CHEAP]}/v1", "allow_private": True},
            "rich": {"kind": "openai", "base_url": f"{urls[RICH]}/v1", "allow_private": True},
        },
        "models": {
            name: {
                "provider": provider,
                "max_output": 512,
                "price": {"input": PRICES[name][0], "output": PRICES[name][1]},
                "fallbacks": [RICH if name == CHEAP else CHEAP],
            }
            for name, provider in ((CHEAP, "cheap"), (RICH, "rich"))
        },
        "routes": {"auto": {"tiers": {"low": [CHEAP], "medium": [CHEAP], "high": [RICH]}, "explore": 0}},
        "tenant_defaults": {"rpm": 100_000, "concurrency": CONCURRENCY, "budget": {"hour": "10.00"}},
        "cache": {"semantic": {"checks": {"share": 0, "judge": "exact"}}},
        "telemetry": {"log": "calls.jsonl"},
    }


def budget_of(tenant: str) -> dict[str, str]:
    """The caps that a tenant of the demo is created with."""
    return {"hour": BUDGET_USD} if tenant == BUDGET_TENANT else {"hour": "10.00"}


def nano(model: str, prompt_tokens: int, completion_tokens: int) -> int:
    """Nano-USD of tokens at the demo's prices."""
    dear, dearer = (round(float(price) * 1_000) for price in PRICES[model])
    return prompt_tokens * dear + completion_tokens * dearer
