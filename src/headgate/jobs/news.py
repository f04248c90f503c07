"""News: who waits for the next change of a job.

A change that this process makes is told at once. One that another process makes is noticed when somebody looks at the store.

Invariant: nothing is missed by who asks for news first, then looks at the job, and waits after that.
"""

from __future__ import annotations

import asyncio

from headgate.jobs.jobs import Name, State

News = asyncio.Future[None]


class _Watched:
    """Those who wait for one job, and the state in which it was seen last."""

    def __init__(self) -> None:
        self.waiting: list[News] = []
        self.seen: State | None = None


class Watch:
    """Everybody in this process who waits."""

    def __init__(self) -> None:
        self._watched: dict[Name, _Watched] = {}
        self._over = False

    def news(self, name: Name) -> News:
        """Something to wait for: done when a job's state has changed, or it is all over. Cancel it to wait no more."""
        news: News = asyncio.get_running_loop().create_future()
        if self._over:
            news.set_result(None)
            return news
        self._watched.setdefault(name, _Watched()).waiting.append(news)
        news.add_done_callback(lambda done: self._forget(name, done))
        return news

    def names(self) -> list[Name]:
        """The jobs that somebody waits for."""
        return list(self._watched)

    def tell(self, name: Name) -> None:
        """A job's state has changed."""
        watched = self._watched.pop(name, None)
        for news in [] if watched is None else watched.waiting:
            if not news.done():
                news.set_result(None)

    def seen(self, name: Name, state: State | None) -> None:
        """A job is in this state, or is not there any more: tell, when it was another one before."""
        watched = self._watched.get(name)
        if watched is None:
            return
        before, watched.seen = watched.seen, state
        if before is not None and before != state:
            self.tell(name)

    def end(self) -> None:
        """Let everybody go, and whoever comes later."""
        self._over = True
        for name in self.names():
            self.tell(name)

    def _forget(self, name: Name, news: News) -> None:
        watched = self._watched.get(name)
        if watched is not None and news in watched.waiting:
            watched.waiting.remove(news)
            if not watched.waiting:
                del self._watched[name]
