"""The HTTP client against servers that behave badly, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator

import pytest

from headgate.model.errors import Malformed, Unavailable, UpstreamTimeout
from headgate.providers.egress import origin_of
from headgate.providers.http import Http, Timeouts
from tests.unit.providers.rawserver import Visit, raw_server

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
SOON = 0.05
"""Seconds of a timeout that is meant to run out."""


@contextlib.asynccontextmanager
async def client(url: str, **settings: object) -> AsyncIterator[Http]:
    http = Http(origin_of(url, allow_private=True), name="acme", allow_private=True, **settings)
    try:
        yield http
    finally:
        await http.close()


async def ask(http: Http, *, timeout: float = 5.0) -> bytes:
    answer = await http.post("/x", b"{}", timeout=timeout)
    try:
        return await answer.whole()
    finally:
        answer.close()


async def test_a_request_carries_its_headers_and_body_and_asks_for_no_compression() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"yes")

    async with raw_server(play) as server, client(server.url + "/v1/", headers={"X-Key": "k"}) as http:
        assert await ask(http) == b"yes"
        head, _, body = server.visits[0].requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/x HTTP/1.1"
    assert body == b"{}"
    assert {b"x-key: k", b"accept-encoding: identity", b"content-length: 2"} < set(lines)
    assert b"host: " + server.url.removeprefix("http://").encode() in lines


async def test_a_connection_is_used_again() -> None:
    async def play(visit: Visit) -> None:
        for number in range(3):
            await visit.request()
            await visit.answer(b"%d" % number)

    async with raw_server(play) as server, client(server.url) as http:
        assert [await ask(http) for _ in range(3)] == [b"0", b"1", b"2"]
        assert len(server.visits) == 1


async def test_a_connection_that_the_server_will_close_is_not_used_again() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"yes", headers="connection: close\r\n")

    async with raw_server(play) as server, client(server.url) as http:
        assert [await ask(http), await ask(http)] == [b"yes", b"yes"]
        assert len(server.visits) == 2


async def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\n\r\nab", b"cd")

    async with raw_server(play) as server, client(server.url) as http:
        assert await ask(http) == b"abcd"


async def test_interim_answers_are_skipped() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
        await visit.answer(b"yes")

    async with raw_server(play) as server, client(server.url) as http:
        assert await ask(http) == b"yes"


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"", status="302 Found", headers="location: http://127.0.0.1:1/\r\n")

    async with raw_server(play) as server, client(server.url) as http:
        answer = await http.post("/x", b"{}", timeout=5)
        answer.close()
        assert answer.status == 302


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc", CHUNKED + b"3\r\nabc\r\n"])
async def test_a_body_that_is_cut_off_is_unavailable_and_what_came_is_given_first(sent: bytes) -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.say(sent)

    async with raw_server(play) as server, client(server.url) as http:
        answer = await http.post("/x", b"{}", timeout=5)
        assert await answer.read() == b"abc"
        with pytest.raises(Unavailable, match=r"^acme broke off its answer\.$"):
            await answer.read()
        answer.close()


@pytest.mark.parametrize(
    ("sent", "proven"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf", 1_000),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", 0),
        (CHUNKED + b"4\r\nhalf\r\n", 4),
    ],
    ids=["a promised length whose beginning came", "a head alone", "pieces"],
)
async def test_an_accepted_answer_that_breaks_off_says_what_must_have_been_made(sent: bytes, proven: int) -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.say(sent)

    async with raw_server(play) as server, client(server.url) as http:
        with pytest.raises(Unavailable) as broken:
            with await http.post("/x", b"{}", timeout=5.0) as answer:
                await answer.whole()
    assert (broken.value.sent, broken.value.received) == (True, proven)


async def test_an_accepted_answer_that_cannot_be_read_was_sent_whatever_its_reader_says() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"what?")

    async with raw_server(play) as server, client(server.url) as http:
        with pytest.raises(Malformed) as broken:
            with await http.post("/x", b"{}", timeout=5.0) as answer:
                await answer.whole()
                raise Malformed("no JSON")
    assert (broken.value.sent, broken.value.received) == (True, 5)


async def test_a_server_that_hangs_up_without_a_word_is_unavailable() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()

    async with raw_server(play) as server, client(server.url) as http:
        with pytest.raises(Unavailable, match="before it answered"):
            await ask(http)


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-encoding: gzip\r\n\r\nabc",
        CHUNKED + b"zz\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 2_000_000,
        CHUNKED + b"1;" + b"x" * 2_000_000,
        CHUNKED + b"1\r\na\r\n0\r\nx: " + b"t" * 2_000_000,
    ],
    ids=["no-http", "upgrade", "two-lengths", "compressed", "bad-chunk", "huge-head", "huge-framing", "huge-trailer"],
)
async def test_broken_or_boundless_framing_is_malformed(sent: bytes) -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.say(sent)
        await visit.gone()

    async with raw_server(play) as server, client(server.url) as http:
        with pytest.raises(Malformed, match=r"^acme "):
            await ask(http)


async def test_a_body_over_the_limit_is_malformed() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"a" * 1001)

    async with raw_server(play) as server, client(server.url) as http:
        answer = await http.post("/x", b"{}", timeout=5)
        with pytest.raises(Malformed, match="more than 1000 bytes"):
            await answer.whole(1000)
        answer.close()


async def test_a_server_is_made_to_wait_while_nobody_reads() -> None:
    """Sixty-four mebibytes do not fit into the sockets and the client's buffer, so the server has not sent them all."""
    sent = 0

    async def play(visit: Visit) -> None:
        nonlocal sent
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 * 2**20))
        for _ in range(64):
            await visit.say(b"a" * 2**20)
            sent += 1

    async with raw_server(play) as server, client(server.url) as http:
        answer = await http.post("/x", b"{}", timeout=30)
        first = await answer.read()
        for _ in range(200):
            await asyncio.sleep(0)
        held = sent
        size = len(first)
        while piece := await answer.read():
            size += len(piece)
        answer.close()
    assert size == 64 * 2**20
    assert held < 64


async def test_the_first_byte_timeout_names_itself() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.gone()

    async with raw_server(play) as server, client(server.url, timeouts=Timeouts(first_byte=SOON)) as http:
        with pytest.raises(UpstreamTimeout, match=r"the first byte timeout of 0\.05 s ran out"):
            await ask(http)
        await server.left.wait()


async def test_the_idle_timeout_names_itself() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.say(CHUNKED + b"3\r\nabc\r\n")
        await visit.gone()

    async with raw_server(play) as server, client(server.url, timeouts=Timeouts(idle=SOON)) as http:
        with pytest.raises(UpstreamTimeout, match=r"the idle timeout of 0\.05 s ran out"):
            await ask(http)
        await server.left.wait()


async def test_the_total_timeout_names_itself_although_pieces_keep_coming() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.say(CHUNKED)
        while True:
            await visit.say(b"1\r\na\r\n")
            await asyncio.sleep(SOON / 10)

    async with raw_server(play) as server, client(server.url) as http:
        with pytest.raises(UpstreamTimeout, match=r"the total timeout of 0\.1 s ran out"):
            await ask(http, timeout=0.1)


async def test_a_head_that_drips_does_not_move_the_first_byte_timeout() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\n")
        while True:
            await visit.say(b"x: y\r\n")
            await asyncio.sleep(SOON / 10)

    async with raw_server(play) as server, client(server.url, timeouts=Timeouts(first_byte=SOON)) as http:
        with pytest.raises(UpstreamTimeout, match="first byte"):
            await ask(http)


@pytest.mark.parametrize(("timeout", "kind"), [(5.0, "connect"), (SOON, "total")])
async def test_the_connect_timeout_names_itself(timeout: float, kind: str) -> None:
    """A listener whose queue is full drops the packets of further connections."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with client(url, timeouts=Timeouts(connect=0.1)) as http:
            with pytest.raises(UpstreamTimeout, match=f"the {kind} timeout"):
                await ask(http, timeout=timeout)


async def test_whoever_is_cancelled_before_the_head_closes_the_connection() -> None:
    """The provider would go on working, and billing, for an answer that nobody reads."""
    asked = asyncio.Event()

    async def play(visit: Visit) -> None:
        await visit.request()
        asked.set()
        await visit.gone()

    async with raw_server(play) as server, client(server.url) as http:
        task = asyncio.create_task(ask(http))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.left.wait()


async def test_an_answer_closed_in_the_middle_closes_the_connection() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.say(CHUNKED + b"3\r\nabc\r\n")
        await visit.gone()

    async with raw_server(play) as server, client(server.url) as http:
        answer = await http.post("/x", b"{}", timeout=5)
        assert await answer.read() == b"abc"
        answer.close()
        await server.left.wait()


async def test_a_finished_answer_keeps_its_connection_once_the_last_bytes_have_come() -> None:
    """After an event that ends a stream the closing chunk may still be on its way."""
    read = asyncio.Event()

    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.say(CHUNKED + b"3\r\nabc\r\n")
        await read.wait()
        await visit.say(b"1\r\nd\r\n", b"0\r\n\r\n")
        await visit.request()
        await visit.answer(b"again")

    async with raw_server(play) as server, client(server.url) as http:
        answer = await http.post("/x", b"{}", timeout=5)
        assert await answer.read() == b"abc"
        answer.finish()
        read.set()
        while not http.kept:
            await asyncio.sleep(0)
        assert await ask(http) == b"again"
        assert len(server.visits) == 1


async def test_nothing_is_listening() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        async with client(f"http://127.0.0.1:{held.getsockname()[1]}") as http:
            with pytest.raises(Unavailable, match=r"^acme cannot be reached: connection refused\.$"):
                await ask(http)


async def test_the_next_address_is_tried_when_one_refuses() -> None:
    async def play(visit: Visit) -> None:
        while True:
            await visit.request()
            await visit.answer(b"yes", headers="connection: close\r\n")

    async def lookup(host: str, port: int) -> list[str]:
        return ["127.0.0.9", "127.0.0.1"]

    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(raw_server(play))
        url = server.url.replace("127.0.0.1", "acme.test")
        http = await stack.enter_async_context(client(url, lookup=lookup))
        assert await ask(http) == b"yes"


async def test_a_name_that_resolves_to_a_private_address_is_not_connected_to() -> None:
    async def play(visit: Visit) -> None:
        await visit.request()

    async def lookup(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "127.0.0.1"]

    async with raw_server(play) as server:
        http = Http(origin_of(server.url.replace("127.0.0.1", "acme.test")), name="acme", lookup=lookup)
        with pytest.raises(Unavailable, match="its name resolves to a loopback address") as caught:
            await ask(http)
        assert "127.0.0.1" not in caught.value.message
        assert server.visits == []


async def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    async def lookup(host: str, port: int) -> list[str]:
        raise socket.gaierror

    async with client("http://acme.test", lookup=lookup) as http:
        with pytest.raises(Unavailable, match="does not resolve"):
            await ask(http)


@pytest.mark.parametrize(
    "headers", [{"a b": "c"}, {"a": "b\r\nc: d"}, {"a": "é"}, {"Host": "x"}, {"Content-Length": "1"}]
)
def test_a_header_that_would_break_the_request_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="header"):
        Http(origin_of("https://api.example.com"), name="acme", headers=headers)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate")
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=acme.test", "-addext", "subjectAltName=DNS:acme.test", "-keyout", key, "-out", cert]
    subprocess.run(command, check=True, capture_output=True)
    return key, cert


async def test_tls_checks_the_name_of_the_server_although_it_connects_to_an_address(
    certificate: tuple[str, str],
) -> None:
    key, cert = certificate
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(cert, key)
    trusting = ssl.create_default_context(cafile=cert)

    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"yes")

    async def lookup(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with raw_server(play, tls=served) as server:
        good, other = (server.url.replace("127.0.0.1", name) for name in ("acme.test", "other.test"))
        async with client(good, tls=trusting, lookup=lookup) as http:
            assert await ask(http) == b"yes"
        async with client(other, tls=trusting, lookup=lookup) as http:
            with pytest.raises(Unavailable, match="cannot be trusted"):
                await ask(http)
        async with client(good, lookup=lookup) as http:
            with pytest.raises(Unavailable, match="cannot be trusted"):
                await ask(http)
