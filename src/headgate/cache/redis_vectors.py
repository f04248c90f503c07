"""Where vectors lie in Redis: in vector sets (Redis 8), in an index of RediSearch (`FT.SEARCH`, part of Redis Stack), or not at all.

Either says in Lua how a vector is laid, lifted and searched for, and is part of every script, so an entry and its vector come and go in one
step with both. Neither's own scores are used: they are a distance here and (1 + cosine) / 2 there, of rounded vectors; the stored vectors of the
few that were found are compared anew (`redis_shelf.py`), and the cosine is made in one place.

RediSearch is asked for only on a single server: in a cluster its index is of all nodes, which no script of one of them may search. The servers
that the tests start have vector sets; the same suites run over the one at `HEADGATE_TEST_REDIS_SEARCH_URL` where that is set.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from headgate.storage.redis import Redis, Script, script

KIND = "HNSW"
"""Of an index: approximate; `FLAT` compares with all."""
VERSION = 1
"""Part of an index's name, also in redis_search.lua: raised with every change of its schema, for an index is never changed."""


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


class Scripts(msgspec.Struct, frozen=True):
    """The scripts of the cache, as they go with one way of keeping vectors; see the files of these names, and `redis_shelf.py`."""

    put: Script
    look: Script
    use: Script
    sweep: Script
    scan: Script
    called: Script
    bodies: Script
    remove: Script
    begin: Script


class Vectors(msgspec.Struct, frozen=True):
    """One way of keeping vectors. `heavier`: bytes that one of so many dimensions takes; `indexed`: whether there must be an index."""

    scripts: Scripts
    heavier: Callable[[int], int]
    indexed: bool = False


_BODIES = """
local found = {}
for index = 3, #ARGV do
  local head = call('HGET', heads, ARGV[index])
  local body = head and call('GET', body_of(ARGV[index]))
  if body then found[#found + 1] = {head, body} end
end
return {estate(), found}
"""
_REMOVE = """
local removed = 0
for index = 3, #ARGV, 2 do
  local one = read(ARGV[index])
  if one and one.number == tonumber(ARGV[index + 1]) then
    drop(ARGV[index], one)
    removed = removed + 1
  end
end
return {estate(), removed}
"""
_BEGIN = """
number = math.max(number + 1, micros)
call('RPUSH', news, struct.pack('<d', number) .. ARGV[3])
if call('LLEN', news) > tonumber(ARGV[4]) then
  dropped = struct.unpack('<d', call('LPOP', news))
  call('HSET', own, 'dropped', whole(dropped))
end
call('HSET', own, 'number', whole(number))
last(0)
return {estate(), tonumber(call('HGET', own, 'last')) or 0}
"""


def _scripts(vectors: str) -> Scripts:
    begins = _text("redis_tenant.lua") + _text(vectors)

    def made(text: str) -> Script:
        return script(begins + text)

    return Scripts(
        put=made(_text("redis_put.lua")),
        look=made(_text("redis_look.lua")),
        use=made("local one = read(ARGV[3])\nif one then use(ARGV[3], one) end\nreturn 0"),
        sweep=made("local swept = sweep(ARGV[3])\nreturn {estate(), swept}"),
        scan=made(
            "local found = call('HSCAN', heads, ARGV[3], 'COUNT', ARGV[4])\nreturn {estate(), found[1], found[2]}"
        ),
        called=made(
            "local name = call('HGET', ids, ARGV[3])\nreturn {estate(), name and {name, call('HGET', heads, name)} or {}}"
        ),
        bodies=made(_BODIES),
        remove=made(_REMOVE),
        begin=made(_BEGIN),
    )


# A first vector of a set takes some 2,000 bytes more: what a set is.
IN_SETS = Vectors(_scripts("redis_sets.lua"), lambda dimensions: dimensions + 800)
# Once in the hash and once in the index, as float32.
IN_INDEX = Vectors(_scripts("redis_search.lua"), lambda dimensions: 8 * dimensions + 700, indexed=True)

_KNOWS = script("local said = redis.pcall(ARGV[1], KEYS[1])\nreturn type(said) == 'table' and said.err or ''")


async def known(redis: Redis) -> Vectors | None:
    """How this server keeps vectors; None for one that cannot. Raises Overloaded."""
    for command, vectors in (("VCARD", IN_SETS), ("FT.INFO", IN_INDEX)):
        said: bytes = await redis.call(_KNOWS, [redis.key("cache", "vectors")], command)
        knows = b"nknown Redis command" not in said and b"ACL failure" not in said
        if knows and (not vectors.indexed or len(await redis.each("PING")) == 1):
            return vectors
    return None


async def index(redis: Redis, dimensions: int) -> None:
    """Have an index of vectors of so many dimensions. Redis fills it with what there is. Raises Overloaded."""
    schema = ("TYPE", "FLOAT32", "DIM", dimensions, "DISTANCE_METRIC", "COSINE")
    near = f"{redis.prefix}:near:"
    try:
        await redis.do(
            "FT.CREATE", f"{near}{VERSION}:{dimensions}", "ON", "HASH", "PREFIX", 1, f"{near}{dimensions}:",
            "SCHEMA", "place", "TAG", "vector", "VECTOR", KIND, len(schema), *schema,
        )  # fmt: skip
    except Exception as error:
        # Another process was quicker.
        if "already exists" not in str(error):
            raise
