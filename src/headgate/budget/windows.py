"""Windows: calendar windows whose id is part of what is counted, so that nothing is ever reset.

An id is `kind:start`, such as `hour:2026-11-20T17` or `week:2026-W47`; in a zone other than UTC the zone follows, as in
`day:2026-11-20@Europe/Berlin`. Hours and minutes carry the offset from UTC, so the hour that a clock repeats in autumn is two
windows. A window that counts tokens instead of money begins with `tokens/`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

from headgate.model.tenancy import Window
from headgate.model.zones import zone_of

TOKENS = "tokens/"


def window_id(window: Window, at: float, zone: str = "UTC") -> str:
    """The id of the calendar window of `zone` that holds the unix time `at`. Raises ValueError for a zone there is not."""
    return _id_of(window, int(at // 60), zone)


@lru_cache(maxsize=1_024)
def _id_of(window: Window, minute: int, zone: str) -> str:
    """Since 1972 no zone's clock has been changed within a minute, so a minute is of one window."""
    if window == "total":
        return "total"
    moment = datetime.fromtimestamp(minute * 60, zone_of(zone))
    place = "" if zone == "UTC" else f"@{zone}"
    if window == "week":
        year, week, _ = moment.isocalendar()
        return f"week:{year}-W{week:02d}{place}"
    offset = "" if zone == "UTC" or window in ("day", "month") else moment.strftime("%z")
    shape = {"minute": "%Y-%m-%dT%H:%M", "hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}[window]
    return f"{window}:{moment.strftime(shape)}{offset}{place}"


@lru_cache(maxsize=4_096)
def window_bounds(id: str) -> tuple[float, float] | None:
    """When the window of this id begins and ends (exclusive), unix seconds; None when it never ends or is no such id."""
    kind, _, rest = id.removeprefix(TOKENS).partition(":")
    start, _, zone = rest.partition("@")
    try:
        begin, end = _span(kind, start, zone_of(zone or "UTC"))
    except (ValueError, OverflowError):
        return None
    return begin.timestamp(), end.timestamp()


def window_end(id: str) -> float | None:
    """When the window of this id ends, unix seconds; None when it never does or the id is no such window."""
    bounds = window_bounds(id)
    return None if bounds is None else bounds[1]


def kind_of(id: str) -> str:
    """`minute`, `hour`, `day`, `week`, `month` or `total`."""
    return id.removeprefix(TOKENS).partition(":")[0]


def _span(kind: str, start: str, zone: tzinfo) -> tuple[datetime, datetime]:
    if kind in ("minute", "hour"):
        shape = "%Y-%m-%dT%H:%M" if kind == "minute" else "%Y-%m-%dT%H"
        offset = "" if zone is not UTC else "+0000"
        begin = datetime.strptime(start + offset, f"{shape}%z")
        return _in_force(begin, 1 if kind == "minute" else 60, zone)
    if kind == "week":
        monday = datetime.strptime(f"{start}-1+0000", "%G-W%V-%u%z")
        return _local(monday, zone), _local(monday + timedelta(days=7), zone)
    if kind == "day":
        day = datetime.strptime(f"{start}+0000", "%Y-%m-%d%z")
        return _local(day, zone), _local(day + timedelta(days=1), zone)
    if kind == "month":
        first = datetime.strptime(f"{start}+0000", "%Y-%m%z")
        return _local(first, zone), _local(_next_month(first), zone)
    raise ValueError(kind)


def _in_force(begin: datetime, minutes: int, zone: tzinfo) -> tuple[datetime, datetime]:
    """So many minutes from a moment on, as far as the zone's clocks went as that moment's offset says: where they are changed
    by half an hour, an hour is cut short. Raises ValueError when they never did."""
    passing = [begin + timedelta(minutes=number) for number in range(minutes)]
    told = [moment for moment in passing if moment.astimezone(zone).utcoffset() == begin.utcoffset()]
    if not told:
        raise ValueError(begin)
    return told[0], told[-1] + timedelta(minutes=1)


def _local(midnight: datetime, zone: tzinfo) -> datetime:
    """A local midnight; where clocks skip or repeat it, the first moment that is called so."""
    return midnight.replace(tzinfo=zone, fold=0)


def _next_month(first: datetime) -> datetime:
    return first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
