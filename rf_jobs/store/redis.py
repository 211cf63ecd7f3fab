"""The executors: an async and a sync one. They run calls, send them again where that helps, and know nothing of jobs.

redis-py's own retries are off: by default it sends a script again in silence after a lost reply. Ours are explicit, and
every call is safe to send twice. Blocking commands use a connection of their own, whose timeout lies above theirs.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import redis
import redis.asyncio as aredis
import redis.exceptions
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from rf_jobs.store.calls import Call, text
from rf_jobs.store.channels import Channels
from rf_jobs.store.commands import Commands
from rf_jobs.store.connections import client_options, packing
from rf_jobs.store.failures import Failure, explain, kind, unusable
from rf_jobs.store.keys import FINAL_CHANNEL, SCHEMA_VERSION, Keys
from rf_jobs.store.scripts import Script, load
from rf_jobs.words.config_secrets import mask_url
from rf_jobs.words.errors import BackendError, ConfigError
from rf_jobs.words.ids import new_token

T = TypeVar("T")
Observer = Callable[[str, float, str], None]
"""Told of each round trip: operation, seconds, error ('' when it went well)."""
Surround = Callable[[], AbstractContextManager[object]]

BACKOFF_BASE, BACKOFF_CAP = 0.05, 2.0
SOCKET_TIMEOUT = 10.0
SAFE_POLICY = "noeviction"
_NO_RETRY = 0
_UNUSABLE = (ValueError, TypeError, LookupError)
"""What packing an argument or reading a reply may raise."""


def _ignore(_op: str, _took: float, _error: str) -> None:
    return


def pause_before(attempt: int) -> float:
    """Capped exponential backoff with full jitter, in seconds; for reconnecting."""
    return random.uniform(0.2, 1.0) * min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempt, 10))  # noqa: S311


class _Server:
    """What first contact taught us."""

    def __init__(self, namespace: str, url: str, *, allow_eviction: bool) -> None:
        self.keys = Keys(namespace)
        self.commands = Commands(self.keys)
        self.shown_url = mask_url(url)
        self.flags: bool | None = None
        self.instance = ""
        self.version = ""
        self.allow_eviction = allow_eviction

    def script(self, name: str) -> Script:
        return load(name, flags=bool(self.flags))

    def wire(self, call: Call[Any]) -> tuple[Any, ...]:
        if call.script:
            return ("EVALSHA", self.script(call.script).digest, 1, self.keys.ledger, *call.args)
        return tuple(call.args)

    def learn(self, info: dict[str, Any]) -> None:
        """Judge the server from its INFO; raises ``BackendError`` where it is not fit to hold jobs."""
        self.version = str(info.get("valkey_version") or info.get("redis_version") or "0")
        known = tuple(int(part) for part in str(info.get("redis_version", "0.0")).split(".")[:2])
        if known < (6, 2):
            raise BackendError(
                f"the server at {self.shown_url} is version {self.version}; rf-jobs needs Redis 6.2 or Valkey 7.2"
            )
        self.flags = known >= (7, 0)
        policy = str(info.get("maxmemory_policy", SAFE_POLICY))
        if policy != SAFE_POLICY and not self.allow_eviction:
            raise BackendError(
                f"the server at {self.shown_url} has maxmemory-policy {policy!r} and may drop jobs in silence;"
                f" set it to {SAFE_POLICY!r}, or allow it with allow_evicting_server in [jobs.security]"
            )

    def welcome(self, reply: tuple[int, str]) -> None:
        schema, self.instance = reply
        if schema != SCHEMA_VERSION:
            raise BackendError(
                f"the store at {self.shown_url} has schema version {schema}, this code works with {SCHEMA_VERSION};"
                " run the version of rf-jobs that fits, or use another namespace"
            )


class AsyncStore:
    """Runs calls on an event loop. Opens its connections at first use; ``aclose`` closes them."""

    def __init__(
        self,
        url: str,
        namespace: str = "rf",
        *,
        allow_eviction: bool = False,
        retry_for: float = 5.0,
        observer: Observer = _ignore,
    ) -> None:
        self.url = url
        self.server = _Server(namespace, url, allow_eviction=allow_eviction)
        self.commands = self.server.commands
        self.keys = self.server.keys
        self.retry_for = retry_for
        """Seconds for which a call is sent again when the server can't be reached."""
        self.observer = observer
        self.surround: Surround = nullcontext
        """Entered around each exchange with the server, so that an instrumented client can be kept quiet."""
        self.closed = False
        self._ready = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting = asyncio.Lock()
        self._client = self._open(SOCKET_TIMEOUT)
        self._blocking: aredis.Redis | None = None

    def _open(self, timeout: float) -> aredis.Redis:
        retry = AsyncRetry(NoBackoff(), _NO_RETRY)
        try:
            client = aredis.Redis.from_url(self.url, retry=retry, **client_options(self.url, timeout))
        except ValueError as error:
            raise ConfigError(f"redis_url is {self.server.shown_url!r}: {error}") from None
        pool = client.connection_pool
        pool.connection_class = packing(pool.connection_class)
        return client

    async def connect(self) -> None:
        """Make first contact. Raises ``BackendError`` for a server that is unreachable, refuses us, or may drop jobs."""
        await self._retrying("connect", self._contact, self.retry_for)

    async def _contact(self) -> None:
        async with self._connecting:
            if not self._ready:
                self.server.learn(await self._client.info())
                await self.greet()
                self._ready = True

    async def greet(self) -> None:
        """Give the store an instance id, if it has none: at first contact, and after it was emptied."""
        self.server.welcome(await self._once(self.commands.hello(new_token(16))))

    async def drop_namespace(self) -> int:
        """Remove every key of this namespace, some at a time; answers how many. There is no way back."""
        removed = cursor = 0
        while True:
            cursor, keys = await self._client.scan(cursor, match=self.keys.pattern, count=1000)
            if keys:
                removed += await self._client.unlink(*keys)
            if not cursor:
                return removed

    async def run(self, call: Call[T], *, retry_for: float | None = None) -> T:
        """Run one call. Raises ``BackendError``."""
        return cast(T, (await self.run_many((call,), retry_for=retry_for))[0])

    async def run_many(self, calls: Sequence[Call[Any]], *, retry_for: float | None = None) -> list[Any]:
        """Run calls in order, in one round trip; all are sent again where the reply to any was lost."""

        async def attempt() -> list[Any]:
            if not self._ready:
                await self._contact()
            if len(calls) == 1:
                return [await self._once(calls[0])]
            return await self._pipelined(calls)

        return await self._retrying(calls[0].op, attempt, self.retry_for if retry_for is None else retry_for)

    async def _once(self, call: Call[T]) -> T:
        wire = self.server.wire(call)
        try:
            reply = await self._client.execute_command(*wire)
        except redis.exceptions.NoScriptError:
            await self._client.script_load(self.server.script(call.script).text)
            reply = await self._client.execute_command(*wire)
        return call.read(reply)

    async def _pipelined(self, calls: Sequence[Call[Any]]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for call in calls:
            pipe.execute_command(*self.server.wire(call))
        replies = await pipe.execute(raise_on_error=False)
        for at, call in enumerate(calls):
            if isinstance(replies[at], redis.exceptions.NoScriptError):
                # The others have run; this one has not, and runs now.
                await self._client.script_load(self.server.script(call.script).text)
                replies[at] = await self._client.execute_command(*self.server.wire(call))
            elif isinstance(replies[at], Exception):
                raise replies[at]
        return [call.read(reply) for call, reply in zip(calls, replies, strict=True)]

    async def _retrying(self, op: str, attempt: Callable[[], Awaitable[T]], retry_for: float) -> T:
        if self.closed:
            raise BackendError(f"{op}: this manager was closed; make a new one")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise BackendError(
                    f"{op}: this manager belongs to another event loop; make one per loop, or use rf_jobs.sync"
                )
            self._loop = loop
        give_up = time.monotonic() + retry_for
        tries = 0
        while True:
            began = time.perf_counter()
            try:
                with self.surround():
                    result = await attempt()
            except (redis.exceptions.RedisError, OSError, EOFError) as error:
                what = kind(error)
                self.observer(op, time.perf_counter() - began, what.value)
                pause = pause_before(tries)
                tries += 1
                if what not in (Failure.LOST, Failure.TRANSIENT) or time.monotonic() + pause > give_up:
                    raise explain(error, self.server.shown_url, op) from error
                if what is Failure.TRANSIENT:
                    await self._client.connection_pool.disconnect(inuse_connections=False)
                await asyncio.sleep(pause)
            except _UNUSABLE as error:
                self.observer(op, time.perf_counter() - began, Failure.WRONG.value)
                raise unusable(error, op) from error
            else:
                self.observer(op, time.perf_counter() - began, "")
                return result

    @property
    def client(self) -> aredis.Redis:
        """The connection pool's client, for tests and for looking around; the engine itself runs calls."""
        return self._client

    async def wait_for_wake(self, queues: Sequence[str], timeout: float) -> str | None:
        """Block until one of the queues gets a job, at most ``timeout`` seconds; answers which. A hint: it may miss, and
        may lie. Who can't use it should ``pass_on``."""
        if self._blocking is None:
            self._blocking = self._open(timeout=120.0)
        keys = [self.keys.of("wake", queue) for queue in queues]
        with self.surround():
            popped = await self._blocking.execute_command("BLPOP", *keys, f"{timeout:.3f}")
        return None if popped is None else queues[keys.index(text(popped[0]))]

    async def pass_on(self, queue: str) -> None:
        """Leave a wake-up to another worker."""
        with self.surround():
            await self._client.execute_command("RPUSH", self.keys.of("wake", queue), "1")

    async def finals(self) -> Any:
        """A subscription to the ends of watched jobs; its ``get_message`` answers with ``<id> <state>``."""
        subscription = self._client.pubsub(ignore_subscribe_messages=True)
        await subscription.subscribe(self.keys.of(FINAL_CHANNEL))
        return subscription

    def channels(self, family: str) -> Channels:
        """An ear for the channels of a family."""
        return Channels(self._client, self.keys.of(family) + ":")

    async def aclose(self) -> None:
        """Close all connections. Calls made later raise ``BackendError``."""
        self.closed = True
        await self._client.aclose()
        if self._blocking is not None:
            await self._blocking.aclose()


class SyncStore:
    """Runs calls without an event loop: for the supervisor and the lease thread."""

    def __init__(
        self,
        url: str,
        namespace: str = "rf",
        *,
        allow_eviction: bool = False,
        timeout: float = 3.0,
        retry_for: float = 5.0,
    ) -> None:
        self.server = _Server(namespace, url, allow_eviction=allow_eviction)
        self.commands = self.server.commands
        self.retry_for = retry_for
        self.observer: Observer = _ignore
        self.surround: Surround = nullcontext
        self._ready = False
        try:
            self._client = redis.Redis.from_url(
                url, retry=Retry(NoBackoff(), _NO_RETRY), **client_options(url, timeout)
            )
        except ValueError as error:
            raise ConfigError(f"redis_url is {self.server.shown_url!r}: {error}") from None

    def run(self, call: Call[T], *, retry_for: float | None = None) -> T:
        """Run one call, as ``AsyncStore.run`` does."""
        give_up = time.monotonic() + (self.retry_for if retry_for is None else retry_for)
        tries = 0
        while True:
            began = time.perf_counter()
            try:
                if not self._ready:
                    self.server.learn(self._client.info())
                    self._ready = True
                    self.server.welcome(self._once(self.commands.hello(new_token(16))))
                with self.surround():
                    reply = self._once(call)
            except (redis.exceptions.RedisError, OSError, EOFError) as error:
                what = kind(error)
                self.observer(call.op, time.perf_counter() - began, what.value)
                pause = pause_before(tries)
                tries += 1
                if what not in (Failure.LOST, Failure.TRANSIENT) or time.monotonic() + pause > give_up:
                    raise explain(error, self.server.shown_url, call.op) from error
                if what is Failure.TRANSIENT:
                    self._client.connection_pool.disconnect()
                time.sleep(pause)
            except _UNUSABLE as error:
                raise unusable(error, call.op) from error
            else:
                self.observer(call.op, time.perf_counter() - began, "")
                return reply

    def _once(self, call: Call[T]) -> T:
        wire = self.server.wire(call)
        try:
            reply = self._client.execute_command(*wire)
        except redis.exceptions.NoScriptError:
            self._client.script_load(self.server.script(call.script).text)
            reply = self._client.execute_command(*wire)
        return call.read(reply)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
