"""Starting and stopping what is measured: the simulator, nginx, the bare ASGI server and Headgate.

Invariant: whatever a `with started(...)` block started is gone when the block is left, on every way out. All servers listen on
127.0.0.1, write only below the folder given to them, and inherit the CPU cores of this process.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

HOST = "127.0.0.1"
MODEL = "simulated-small"
ADMIN_KEY = "benchmark-admin-key"
PACKAGES = {"nginx": "nginx-light", "wrk": "wrk"}
START_LIMIT = 60.0
STOP_LIMIT = 15.0
POLL = 0.002

NGINX_CONFIG = """\
worker_processes 2;
daemon off;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 1000000000;
    upstream simulator {{
        server {host}:{upstream};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass http://simulator;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


class DidNotStart(Exception):
    """A server ended or stayed silent; the message holds the end of its log."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A server that is ready. `ready_s` is the time in seconds from the start of its process to its first 200."""

    name: str
    port: int
    pid: int
    ready_s: float


def missing_packages() -> list[str]:
    """The Debian packages that the benchmark needs and this machine lacks."""
    return [package for command, package in PACKAGES.items() if shutil.which(command, path=_path()) is None]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def fetch(
    port: int, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None, limit: float = 30.0
) -> tuple[int, bytes]:
    """One request outside the measurements: POST when there is a JSON `body`, else GET. Raises OSError."""
    connection = http.client.HTTPConnection(HOST, port, timeout=limit)
    try:
        sent = {"content-type": "application/json", **(headers or {})}
        connection.request("GET" if body is None else "POST", path, body, sent)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextlib.contextmanager
def started(
    name: str,
    command: Sequence[str | Path],
    *,
    port: int,
    ready: str,
    folder: Path,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Run `command` until the block is left; the block begins once `GET ready` answers 200. Raises DidNotStart."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": _import_path(), **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_ready(name, process, port, ready, log)
        yield Running(name=name, port=port, pid=process.pid, ready_s=time.perf_counter() - began)
    finally:
        _stop(process)


def simulator(folder: Path, *, tokens_per_s: float = 0) -> contextlib.AbstractContextManager[Running]:
    """The simulated provider that all the others call."""
    port = free_port()
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "headgate",
        "simulate",
        "--port",
        str(port),
        "--tokens-per-s",
        str(tokens_per_s),
    ]
    return started("simulator", command, port=port, ready="/_sim/stats", folder=folder)


def nginx(folder: Path, *, upstream: int) -> contextlib.AbstractContextManager[Running]:
    """`proxy_pass` to the simulator with connections kept alive: the floor of any separate proxy."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nginx.conf"
    config.write_text(NGINX_CONFIG.format(host=HOST, port=port, upstream=upstream))
    executable = shutil.which("nginx", path=_path()) or "nginx"
    command: list[str | Path] = [executable, "-p", f"{folder}/", "-e", "error.log", "-c", config]
    return started("nginx", command, port=port, ready="/_sim/stats", folder=folder)


def bare(folder: Path, *, answer_bytes: int) -> contextlib.AbstractContextManager[Running]:
    """Uvicorn with a raw ASGI function that answers by itself: the floor of any Python server."""
    port = free_port()
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "benchmarks.bare_asgi",
        "--port",
        str(port),
        "--answer-bytes",
        str(answer_bytes),
    ]
    return started("bare", command, port=port, ready="/", folder=folder)


def headgate_config(upstreams: Mapping[str, int], *, semantic: bool) -> dict[str, Any]:
    """Everything on: SQLite ledger, prices, limits and budget high enough to refuse nobody. `upstreams` is model -> port."""
    return {
        "storage": {"url": "sqlite:///headgate.db"},
        "providers": {
            f"upstream-{port}": {
                "kind": "openai",
                "base_url": f"http://{HOST}:{port}/v1",
                "api_key": "none-needed",
                "allow_private": True,
            }
            for port in set(upstreams.values())
        },
        "models": {
            model: {
                "provider": f"upstream-{port}",
                "context_window": 128_000,
                "price": {"input": "0.15", "output": "0.60"},
            }
            for model, port in upstreams.items()
        },
        "cache": {"semantic": {"mode": "on" if semantic else "off"}},
        "coalesce": {"mode": "semantic" if semantic else "exact"},
        "tenant_defaults": {"budget": {"hour": "1000000.00"}, "rpm": 100_000_000, "concurrency": 10_000},
    }


def headgate(folder: Path, config: Mapping[str, Any]) -> contextlib.AbstractContextManager[Running]:
    """Headgate in a folder of its own. Give a new folder for a first start."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "bench.yaml"
    written.write_text(yaml.safe_dump(dict(config), sort_keys=False))
    kept = folder / "kept"
    kept.mkdir(exist_ok=True)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "headgate",
        "serve",
        "--config",
        written,
        "--data",
        kept,
        "--port",
        str(port),
    ]
    return started(
        "headgate", command, port=port, ready="/readyz", folder=folder, environ={"HEADGATE_ADMIN_KEY": ADMIN_KEY}
    )


def enrol(server: Running, tenant: str = "benchmark") -> str:
    """A new tenant and a key of it, through the management API. Raises DidNotStart when it refuses."""
    tenant = _created(server, "/admin/tenants", {"name": tenant})["id"]
    return _created(server, "/admin/keys", {"tenant": tenant, "name": "benchmark"})["key"]


def resident_mb(pid: int) -> float:
    """Resident memory of a process and its descendants, in MB (1,000,000 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    below = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6 + sum(resident_mb(int(child)) for child in below)


def _created(server: Running, path: str, wanted: Mapping[str, str]) -> dict[str, str]:
    body = msgspec.json.encode(wanted)
    status, answer = fetch(server.port, path, body=body, headers={"authorization": f"Bearer {ADMIN_KEY}"})
    if status >= 300:
        raise DidNotStart(f"{server.name} answered POST {path} with {status}: {answer.decode(errors='replace')}")
    created: dict[str, str] = msgspec.json.decode(answer)
    return created


def _path() -> str:
    # Debian keeps nginx in a folder that is not on the path of ordinary users.
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))


def _import_path() -> str:
    """The servers run in folders of their own and must still import this package."""
    root = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join(part for part in (os.environ.get("PYTHONPATH", ""), root) if part)


def _await_ready(name: str, process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    began = time.monotonic()
    while time.monotonic() - began < START_LIMIT:
        if process.poll() is not None:
            raise DidNotStart(f"{name} ended with code {process.returncode}:\n{_end_of(log)}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            if fetch(port, path, limit=2.0)[0] == 200:
                return
        time.sleep(POLL)
    raise DidNotStart(f"{name} was not ready within {START_LIMIT:g} s:\n{_end_of(log)}")


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
