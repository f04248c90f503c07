"""A replica that leads a flight and says "begun" as soon as its own caller has the first part; then it is killed.

Arguments: the URL of Redis, what keys begin with, and whether there is a first part at all.
"""

from __future__ import annotations

import asyncio
import os
import sys

from headgate.coalesce.redis import RedisRelay
from headgate.providers.scripted import answer
from headgate.storage.redis import Redis
from tests.replicas import Replicas
from tests.waiting import until


async def main(url: str, prefix: str, speaks: str) -> None:
    never = asyncio.Event()
    parts = [answer("One ")[0]] if speaks == "yes" else []
    place = Replicas([*parts, never], relays=[RedisRelay(Redis(url, prefix=prefix), "dying")])
    reader = place.come(0, stream=True)
    await until(lambda: place.calls == [1] and reader.text == ("One " if parts else ""))
    os.write(1, b"begun\n")
    await never.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
