"""One connection to a Redis, or to a cluster, for all of a process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import pytest
import trustme
from redis import exceptions

from headgate.model.errors import Conflict, Overloaded
from headgate.storage.redis import Redis, script
from headgate.storage.redis_cluster import first_key
from tests.servers.redis import PATIENT, RedisServer
from tests.servers.server import free_port
from tests.waiting import until

ECHO = script("return ARGV[1]")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    redis = Redis(redis_url, pool=6, timeout=PATIENT)
    yield redis
    await redis.close()


@pytest.fixture
async def cluster(redis_cluster, redis_prefix) -> AsyncIterator[Redis]:
    redis = Redis(redis_cluster.url, cluster=True, prefix=redis_prefix, timeout=PATIENT)
    yield redis
    await redis.close()


async def test_what_is_asked_for_together_is_one_round_trip(redis) -> None:
    await redis.call(ECHO, [], "known")
    before = redis.round_trips
    answers = await asyncio.gather(*(redis.call(ECHO, [], str(number)) for number in range(100)))
    assert answers == [str(number).encode() for number in range(100)]
    assert redis.round_trips == before + 1


async def test_a_burst_takes_a_handful_of_connections(redis, redis_server) -> None:
    await asyncio.gather(*(redis.do("SET", f"k{number}", number) for number in range(5_000)))
    assert int(redis_server.command("DBSIZE")) == 5_000
    clients = redis_server.command("CLIENT", "LIST", "TYPE", "normal").splitlines()
    assert len([line for line in clients if "lib-name=redis-py" in line]) <= 4


async def test_answers_are_as_the_protocol_has_them(redis) -> None:
    assert await redis.do("SET", "a", "1") == b"OK"
    assert await redis.do("GET", "a") == b"1"
    assert await redis.do("GET", "none") is None
    await redis.do("HSET", "h", "field", 7)
    assert await redis.do("HGETALL", "h") == {b"field": b"7"}
    assert await redis.do("XREAD", "STREAMS", "s", "0") is None
    await redis.do("XADD", "s", "1-1", "f", "v")
    assert await redis.do("XREAD", "STREAMS", "s", "0") == {b"s": [[b"1-1", [b"f", b"v"]]]}


async def test_a_script_that_the_server_has_forgotten_is_sent_again(redis, redis_server) -> None:
    assert await redis.call(ECHO, [], "one") == b"one"
    redis_server.command("SCRIPT", "FLUSH")
    answers = await asyncio.gather(
        redis.call(ECHO, [], "two"), redis.do("SET", "a", "1"), redis.call(ECHO, [], "three")
    )
    assert answers == [b"two", b"OK", b"three"]


async def test_the_error_of_one_is_no_matter_of_the_others(redis) -> None:
    await redis.do("SET", "text", "abc")
    answers = await asyncio.gather(
        redis.do("GET", "text"), redis.do("INCR", "text"), redis.do("GET", "text"), return_exceptions=True
    )
    assert answers[0] == answers[2] == b"abc"
    assert isinstance(answers[1], exceptions.ResponseError)
    assert redis.fault == ""


async def test_what_cannot_be_written_is_no_matter_of_the_others(redis) -> None:
    commands = (("ECHO", "one"), ("ECHO", "half \ud800 of it"), ("ECHO", None), ("ECHO", "two"))
    answers = await asyncio.gather(*(redis.do(*command) for command in commands), return_exceptions=True)
    assert [type(one) for one in answers] == [bytes, UnicodeEncodeError, TypeError, bytes]
    assert redis.fault == ""


async def test_who_stops_waiting_leaves_no_answer_for_another(redis) -> None:
    for _ in range(20):
        waiting = [asyncio.ensure_future(redis.do("ECHO", f"cancelled {number}")) for number in range(5)]
        await asyncio.sleep(0)
        for one in waiting[::2]:
            one.cancel()
        answers = await asyncio.gather(*waiting, redis.do("ECHO", "mine"), return_exceptions=True)
        assert [answers[1], answers[3], answers[5]] == [b"cancelled 1", b"cancelled 3", b"mine"]


async def test_who_stops_waiting_for_a_slow_command_leaves_no_connection_behind(redis, redis_server) -> None:
    for _ in range(10):
        waiting = asyncio.ensure_future(redis.wait_for("BLPOP", "none", 0, seconds=60))
        await until(lambda: "cmd=blpop" in redis_server.command("CLIENT", "LIST"))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: "cmd=blpop" not in redis_server.command("CLIENT", "LIST"))
    assert await redis.do("ECHO", "still well") == b"still well"


async def test_a_slow_command_is_waited_for_beside_all_others(redis) -> None:
    waiting = asyncio.ensure_future(redis.wait_for("BLPOP", "list", 20, seconds=20))
    await redis.do("PING")
    await redis.do("RPUSH", "list", "x")
    assert await waiting == [b"list", b"x"]


async def test_when_all_connections_wait_the_next_is_told_so_and_all_else_goes_on(redis, redis_server) -> None:
    waiting = [asyncio.ensure_future(redis.wait_for("BLPOP", "list", 20, seconds=20)) for _ in range(2)]
    await until(lambda: redis_server.command("CLIENT", "LIST").count("cmd=blpop") == 2)
    with pytest.raises(Overloaded, match=r"All 6 connections to Redis are in use; `redis\.pool` allows more"):
        await redis.wait_for("BLPOP", "list", 20, seconds=20)
    await redis.do("RPUSH", "list", "x", "y")
    await asyncio.gather(*waiting)
    assert redis.fault == "", "who asks for too much at a time says nothing of the server"


async def test_what_takes_longer_than_it_may_is_given_up(redis_url) -> None:
    redis = Redis(redis_url, timeout=0.05)
    with pytest.raises(Overloaded, match="no answer in time"):
        await redis.wait_for("BLPOP", "none", 0, seconds=0.05)
    await redis.close()


async def test_what_a_url_says_of_the_connection_does_not_change_how_it_is_spoken(redis_url) -> None:
    redis = Redis(f"{redis_url}/0?protocol=2&socket_timeout=9&client_name=headgate")
    await redis.do("HSET", "h", "field", 7)
    assert await redis.do("HGETALL", "h") == {b"field": b"7"}
    assert await redis.do("CLIENT", "GETNAME") == b"headgate"
    await redis.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "redis://:secret@127.0.0.1:6379?colour=red",
            "The URL of Redis cannot be read: it knows no parameter 'colour'.",
        ),
        ("redis://:secret@127.0.0.1:port", "The URL of Redis cannot be read."),
        ("redis://:secret@127.0.0.1:6379?socket_timeout=long", "The URL of Redis cannot be read."),
        ("unix://secret@/run/redis.sock", "The URL of Redis cannot be read: it knows no parameter 'host'."),
        ("http://secret@127.0.0.1", "The URL of Redis cannot be read."),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_at_once(url, says) -> None:
    with pytest.raises(Conflict) as refused:
        Redis(url)
    assert refused.value.message == says


async def test_it_speaks_tls_with_a_server_whose_certificate_it_can_check(tmp_path) -> None:
    authority, port = trustme.CA(), free_port()
    one = authority.issue_cert("127.0.0.1")
    names = [str(tmp_path / name) for name in ("authority.pem", "certificate.pem", "key.pem")]
    authority.cert_pem.write_to_path(names[0])
    one.cert_chain_pems[0].write_to_path(names[1])
    one.private_key_pem.write_to_path(names[2])
    settings = dict(zip(("tls_ca_cert_file", "tls_cert_file", "tls_key_file"), names, strict=True))
    with RedisServer(tls_port=port, tls_auth_clients="no", **settings):
        redis = Redis(f"rediss://127.0.0.1:{port}?ssl_ca_certs={names[0]}", timeout=PATIENT)
        assert await redis.do("PING") == b"PONG"
        heard: list[bytes] = []
        listening = asyncio.ensure_future(redis.listen("news", heard.append, lambda: heard.append(b"begun")))
        await until(lambda: heard == [b"begun"])
        await redis.publish("news", b"hello")
        await until(lambda: heard == [b"begun", b"hello"])
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await redis.close()
        stranger = Redis(f"rediss://127.0.0.1:{port}", timeout=PATIENT)
        with pytest.raises(Overloaded, match="CERTIFICATE_VERIFY_FAILED"):
            await stranger.do("PING")
        await stranger.close()


async def test_all_keys_of_a_tenant_carry_one_tag(redis) -> None:
    assert redis.key("t/acme", "rate") == "headgate:{t/acme}:rate"


async def test_what_is_published_is_heard_by_all_who_listen(redis_url) -> None:
    both, heard, begun = [Redis(redis_url, timeout=PATIENT), Redis(redis_url, timeout=PATIENT)], [[], []], [0, 0]

    def begin(index: int) -> Callable[[], None]:
        def begins() -> None:
            begun[index] += 1

        return begins

    listening = [
        asyncio.ensure_future(one.listen("news", heard[index].append, begin(index))) for index, one in enumerate(both)
    ]
    await until(lambda: begun == [1, 1])
    await both[0].publish("news", b"hello")
    await until(lambda: heard == [[b"hello"], [b"hello"]])
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    for one in both:
        await one.close()


async def test_a_password_is_in_no_error_and_no_log(redis_server, redis_url, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    redis_server.command("ACL", "SETUSER", "someone", "on", ">right", "~*", "&*", "+@all")
    redis = Redis(redis_url.replace("redis://", "redis://someone:wr0ng-secret@"))
    for _ in range(5):
        with pytest.raises(Overloaded, match="does not accept our password") as refused:
            await redis.do("PING")
        assert "wr0ng-secret" not in refused.value.message
    listening = asyncio.ensure_future(redis.listen("news", bytes, lambda: None))
    await until(lambda: "broke" in caplog.text)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await redis.close()
    assert "wr0ng-secret" not in caplog.text
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    redis_server.command("ACL", "DELUSER", "someone")


async def test_what_the_server_forbids_is_refused_and_named(redis_server, redis_url) -> None:
    redis_server.command("ACL", "SETUSER", "narrow", "on", ">pass", "~*", "+get", "+hello", "+client")
    redis = Redis(redis_url.replace("redis://", "redis://narrow:pass@"))
    assert await redis.do("GET", "a") is None
    with pytest.raises(Overloaded, match="no permissions"):
        await redis.do("SET", "a", "1")
    await redis.close()
    redis_server.command("ACL", "DELUSER", "narrow")


async def test_nothing_is_asked_for_behind_our_back(redis_server, redis_url) -> None:
    """The client library would ask for maintenance notices, check health and change answers, were it not told otherwise."""
    redis_server.command("CONFIG", "RESETSTAT")
    redis = Redis(redis_url, timeout=PATIENT)
    await redis.do("GET", "a")
    await redis.close()
    stats = redis_server.command("INFO", "commandstats")
    assert "maint_notifications" not in stats
    assert "cmdstat_ping" not in stats


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "k"), "k"),
        (("EVALSHA", "abc", 2, "k", "l", "x"), "k"),
        (("EVAL", "return 1", 0), None),
        (("XREAD", "BLOCK", 10, "STREAMS", "k", "0"), "k"),
        (("XREADGROUP", "GROUP", "g", "c", "STREAMS", "k", ">"), "k"),
        (("XINFO", "STREAM", "k"), "k"),
        (("VSIM", "k", "ELE", "x"), "k"),
        (("PUBLISH", "channel", "x"), None),
        (("FT.SEARCH", "index", "*"), None),
        (("info", "memory"), None),
    ],
)
def test_a_command_belongs_where_its_first_key_lies(command, key) -> None:
    assert first_key(command) == key


async def test_in_a_cluster_each_key_is_asked_for_at_its_node(cluster) -> None:
    keys = [cluster.key(f"t/{number}", "k") for number in range(60)]
    await asyncio.gather(*(cluster.do("SET", key, key) for key in keys))
    assert await asyncio.gather(*(cluster.do("GET", key) for key in keys)) == [key.encode() for key in keys]
    set_both = script("redis.call('SET', KEYS[1], 'x'); return redis.call('GET', KEYS[2])")
    answers = await asyncio.gather(
        *(cluster.call(set_both, [cluster.key(f"t/{n}", "a"), cluster.key(f"t/{n}", "k")]) for n in range(60))
    )
    assert answers == [key.encode() for key in keys]


async def test_a_turns_commands_to_a_cluster_are_one_round_trip_to_each_node(cluster) -> None:
    await cluster.probe()
    before = cluster.round_trips
    await asyncio.gather(*(cluster.do("GET", cluster.key(f"t/{number}", "k")) for number in range(60)))
    assert cluster.round_trips == before + 3


async def test_every_node_that_holds_keys_can_be_asked(cluster, redis_cluster) -> None:
    told = await cluster.each("INFO", "server")
    assert sorted(told) == sorted(f"Redis 127.0.0.1:{node.port}" for node in redis_cluster.nodes)
    assert cluster.fault == ""


async def test_a_cluster_passes_on_what_is_published_at_any_node(cluster) -> None:
    heard, begun = [], []
    listening = [asyncio.ensure_future(cluster.listen("news", heard.append, lambda: begun.append(1))) for _ in range(6)]
    await until(lambda: len(begun) == 6)
    await cluster.publish("news", b"hello")
    await until(lambda: heard == [b"hello"] * 6)
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)


async def test_a_node_of_a_cluster_that_is_taken_for_a_lone_server_says_so(redis_cluster, redis_prefix) -> None:
    redis = Redis(redis_cluster.url, prefix=redis_prefix, timeout=PATIENT)
    with pytest.raises(Overloaded, match=r"set `redis\.cluster`"):
        await asyncio.gather(*(redis.do("GET", redis.key(f"t/{number}")) for number in range(20)))
    await redis.close()


async def test_a_lone_server_that_is_taken_for_a_cluster_says_so(redis_url) -> None:
    redis = Redis(redis_url, cluster=True)
    with pytest.raises(Overloaded, match="is no node of a cluster"):
        await redis.do("GET", "a")
    await redis.close()
