"""Other gateways beside Headgate, when they are installed: LiteLLM's proxy and Portkey's gateway.

Both get the plainest configuration that reaches the same simulator. They are started and measured exactly like the rest.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import msgspec
import yaml

from benchmarks.load import CHAT_PATH, LoadFailed
from benchmarks.questions import NUMBERED, chat_body
from benchmarks.servers import HOST, MODEL, Running, fetch, free_port, started

LITELLM_KEY = "sk-benchmark"
TRIALS = 20


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway that can be measured: how to start it, and the headers that every call to it needs."""

    name: str
    start: Callable[[], contextlib.AbstractContextManager[Running]]
    headers: dict[str, str]


def litellm(folder: Path, *, install: Path | None, upstream: int) -> Peer | str:
    """LiteLLM's proxy with one worker and a master key, or a sentence that says why it is left out."""
    if install is None:
        return "LiteLLM is left out: give --litellm DIR, a virtual environment that has bin/litellm."
    executable = install.resolve() / "bin" / "litellm"
    if not executable.exists():
        return f"LiteLLM is left out: there is no {executable}."
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "litellm.yaml"
    provider = {"model": f"openai/{MODEL}", "api_base": f"http://{HOST}:{upstream}/v1", "api_key": "none-needed"}
    written = {
        "model_list": [{"model_name": MODEL, "litellm_params": provider}],
        "litellm_settings": {"telemetry": False},
        "general_settings": {"master_key": LITELLM_KEY},
    }
    config.write_text(yaml.safe_dump(written, sort_keys=False))

    def start() -> contextlib.AbstractContextManager[Running]:
        port = free_port()
        return started(
            "LiteLLM",
            [executable, "--config", config, "--host", HOST, "--port", str(port), "--num_workers", "1"],
            port=port,
            ready="/health/liveliness",
            folder=folder,
            environ={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "PYTHONPATH": ""},
        )

    return Peer(name="LiteLLM", start=start, headers={"authorization": f"Bearer {LITELLM_KEY}"})


def portkey(folder: Path, *, install: Path | None, upstream: int) -> Peer | str:
    """Portkey's gateway on Node, or a sentence that says why it is left out."""
    if install is None:
        return "Portkey is left out: give --portkey DIR, a folder that has node_modules/@portkey-ai/gateway."
    entry = install.resolve() / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    node = shutil.which("node")
    if not entry.exists() or node is None:
        return f"Portkey is left out: there is no {entry if node else 'node command'}."

    def start() -> contextlib.AbstractContextManager[Running]:
        port = free_port()
        return started(
            "Portkey",
            [node, entry, f"--port={port}", "--headless"],
            port=port,
            ready="/",
            folder=folder,
            environ={"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": f"{HOST},localhost"},
        )

    headers = {
        "authorization": "Bearer none-needed",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://{HOST}:{upstream}/v1",
    }
    return Peer(name="Portkey", start=start, headers=headers)


def try_out(peer: Peer, server: Running) -> None:
    """Ask a few questions one by one: a first answer may take seconds. Raises LoadFailed when one is not a 200."""
    for _ in range(TRIALS):
        status, answer = fetch(server.port, CHAT_PATH, body=chat_body(NUMBERED), headers=peer.headers)
        if status != HTTPStatus.OK:
            raise LoadFailed(f"it answered {status}: {answer[-300:].decode(errors='replace')}")
