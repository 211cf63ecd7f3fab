"""``Clock``: the time of a real server and of this process, moved by a test."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from rf_jobs.client.manager import QueueManager, settings_for
from rf_jobs.store.keys import shards_of
from rf_jobs.store.redis import SyncStore
from rf_jobs.store.scripts import tell_time_by
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import ConfigError, InvalidOption, WorkerError
from rf_jobs.words.timing import Duration, from_ms, millis, moment_ms, move_wall_clock, now_ms

_READ = """(function()
  local t = redis.call('TIME')
  local at = t[1] * 1000 + math.floor(t[2] / 1000)
  local clock = redis.call('HGET', P .. 'server', 'clock') or ''
  local mark, ms = string.sub(clock, 1, 1), tonumber(string.sub(clock, 2)) or 0
  if mark == '=' then at = ms elseif mark == '+' then at = at + ms elseif mark == '-' then at = at - ms end
  return {math.floor(at / 1000), at % 1000 * 1000}
end)()"""
"""In the place of TIME: what travel.lua wrote, and the same arithmetic."""

_in_use: list[Clock] = []


class Clock:
    """Moves the time that a server's scripts and this process's ``now_ms`` see, for one namespace. Starts with ``with``,
    ends with it: then it is now again.

    Delays, retries, schedules, expiry, retention, and keys that expire follow it. Workers do not age by it: their leases and
    heartbeats go along. Timeouts of handlers, and whatever else measures how long this process takes, go by real time, as do
    ``time.time()`` and ``datetime.now()`` of your code, and other processes. One clock can be in use at a time.

    Calls wait for the server, for less than a millisecond on this machine, so that they need no ``await``.
    """

    def __init__(self, target: str | Settings | QueueManager | None = None, *, namespace: str | None = None) -> None:
        settings = target.settings if isinstance(target, QueueManager) else settings_for(target, namespace)
        jobs = settings.jobs
        self._store = SyncStore(jobs.redis_url, shards_of(jobs), allow_eviction=settings.security.allow_evicting_server)
        self.place = (jobs.redis_url, jobs.namespace)
        """The server's URL and the namespace whose clock it is."""
        self._ahead = 0
        self._frozen: int | None = None

    def __enter__(self) -> Self:
        if _in_use:
            raise ConfigError("another Clock is in use in this process; pass that one on, or end it first")
        _in_use.append(self)
        tell_time_by(_READ)
        move_wall_clock(self._moved)
        return self

    def __exit__(self, *exc: object) -> None:
        if self not in _in_use:
            return
        try:
            if self._ahead or self._frozen is not None:
                self._go(0, None)
        finally:
            _in_use.remove(self)
            tell_time_by(None)
            move_wall_clock(None)
            self._store.close()

    def _moved(self, ms: int) -> int:
        return ms + self._ahead if self._frozen is None else self._frozen

    def now(self) -> datetime:
        """What time it is (aware, UTC)."""
        return from_ms(now_ms())

    def advance(self, by: Duration, *, leases: bool = False) -> datetime:
        """Let ``by`` seconds (or a timedelta) pass; answers with the time then. Jobs that came due are fetched at once.
        ``leases``: those of running jobs run out too, as if their workers had died."""
        step = millis(by, "advance")
        if self._frozen is None:
            return self._go(self._ahead + step, None, leases=leases)
        return self._go(self._ahead, self._frozen + step, leases=leases)

    def travel_to(self, when: datetime, *, leases: bool = False) -> datetime:
        """Go to a time (aware), forward or back; from there it goes on, or stands still if it did. Else as ``advance``."""
        at = moment_ms(when, "travel_to")
        if at < 0:
            raise InvalidOption(f"travel_to is {when!r}; give a time after 1970")
        if self._frozen is not None:
            return self._go(self._ahead, at, leases=leases)
        return self._go(at - (now_ms() - self._ahead), None, leases=leases)

    def freeze(self, when: datetime | None = None) -> datetime:
        """Stand still, at ``when`` or now, until ``unfreeze``."""
        return self._go(self._ahead, now_ms() if when is None else moment_ms(when, "freeze"))

    def unfreeze(self) -> datetime:
        """Go on from where it stands."""
        if self._frozen is None:
            return self.now()
        at, self._frozen = self._frozen, None
        return self._go(at - (now_ms() - self._ahead), None)

    def _go(self, ahead: int, frozen: int | None, *, leases: bool = False) -> datetime:
        if self not in _in_use:
            raise WorkerError("this clock is not in use; move it inside of `with Clock(...) as clock:`")
        beside = f"{'+' if ahead > 0 else '-'}{abs(ahead)}" if ahead else ""
        setting = beside if frozen is None else f"={frozen}"
        at = self._store.run(self._store.commands.travel(setting, leases_end=leases))
        self._ahead, self._frozen = ahead, frozen
        return from_ms(at)


def clock_in_use(place: tuple[str, str]) -> Clock | None:
    """The clock of a server and namespace that is in use in this process, if one is."""
    return next((clock for clock in _in_use if clock.place == place), None)
