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

from rf_jobs.store.blocking import Blocking
from rf_jobs.store.calls import Call
from rf_jobs.store.channels import Channels
from rf_jobs.store.connections import client_options, packing
from rf_jobs.store.failures import Failure, explain, kind, unusable
from rf_jobs.store.keys import FINAL_CHANNEL, Shards
from rf_jobs.store.routes import Address, Routes
from rf_jobs.store.server import Server, gathered
from rf_jobs.words.errors import BackendError, ConfigError
from rf_jobs.words.ids import new_token

T = TypeVar("T")
Observer = Callable[[str, float, str], None]
"""Told of each round trip: operation, seconds, error ('' when it went well)."""
Surround = Callable[[], AbstractContextManager[object]]

BACKOFF_BASE, BACKOFF_CAP = 0.05, 2.0
SOCKET_TIMEOUT = 10.0
MOVES = 3
"""So often a shard may be elsewhere than the last node said, within one call."""
GONE = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError, EOFError)
"""What is raised where a server does not answer."""
_NO_RETRY = 0
_UNUSABLE = (ValueError, TypeError, LookupError)
"""What packing an argument or reading a reply may raise."""


def _ignore(_op: str, _took: float, _error: str) -> None:
    return


def pause_before(attempt: int) -> float:
    """Capped exponential backoff with full jitter, in seconds; for reconnecting."""
    return random.uniform(0.2, 1.0) * min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempt, 10))  # noqa: S311


class _Moved(Exception):  # noqa: N818 (no failure)
    """Another node has a shard."""

    def __init__(self, shard: int, error: redis.exceptions.MovedError) -> None:
        self.shard = shard
        self.error = error


class AsyncStore:
    """Runs calls on an event loop. Opens its connections at first use; ``aclose`` closes them."""

    def __init__(
        self,
        url: str,
        shards: Shards | None = None,
        *,
        allow_eviction: bool = False,
        retry_for: float = 5.0,
        observer: Observer = _ignore,
    ) -> None:
        self.url = url
        self.shards = shards or Shards()
        self.server = Server(self.shards, url, allow_eviction=allow_eviction)
        self.commands = self.server.commands
        self.keys = self.commands.keys
        self.retry_for = retry_for
        """Seconds for which a call is sent again when the server can't be reached."""
        self.observer = observer
        self.surround: Surround = nullcontext
        """Entered around each exchange with the server, so that an instrumented client can be kept quiet."""
        self.closed = False
        self._ready = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting = asyncio.Lock()
        self._routes = Routes(len(self.shards), self._open)
        self._blocking = Blocking(self.shards, self._open, self._routes)

    def _open(self, address: Address | None, timeout: float = SOCKET_TIMEOUT) -> aredis.Redis:
        retry = AsyncRetry(NoBackoff(), _NO_RETRY)
        try:
            client = aredis.Redis.from_url(self.url, retry=retry, **client_options(self.url, timeout))
        except ValueError as error:
            raise ConfigError(f"redis_url is {self.server.shown_url!r}: {error}") from None
        pool = client.connection_pool
        pool.connection_class = packing(pool.connection_class)
        if address is not None:
            pool.connection_kwargs.update(host=address[0], port=address[1])
        return client

    async def connect(self) -> None:
        """Make first contact. Raises ``BackendError`` for a server that is unreachable, refuses us, or may drop jobs."""
        await self._retrying("connect", self._contact, self.retry_for)

    async def _contact(self) -> None:
        async with self._connecting:
            if not self._ready:
                self.server.learn(await self._routes.first.info())
                await self.greet()
                for other in self._routes.all[1:]:
                    self.server.learn(await other.info())
                self._ready = True

    async def greet(self) -> None:
        """Give the store an instance id, if it has none: at first contact, and after it was emptied."""
        (reply,) = await self._exchange([self.commands.hello(new_token(16))])
        self.server.welcome(reply)

    async def drop_namespace(self) -> int:
        """Remove every key of this namespace, some at a time; answers how many. There is no way back."""
        removed = 0
        for number, shard in enumerate(self.shards.keys):
            client, cursor = self._routes.of(number), 0
            while True:
                cursor, keys = await client.scan(cursor, match=shard.pattern, count=1000)
                if keys:
                    removed += await client.unlink(*keys)
                if not cursor:
                    break
        return removed

    async def run(self, call: Call[T], *, retry_for: float | None = None) -> T:
        """Run one call. Raises ``BackendError``."""
        return cast(T, (await self.run_many((call,), retry_for=retry_for))[0])

    async def run_many(self, calls: Sequence[Call[Any]], *, retry_for: float | None = None) -> list[Any]:
        """Run calls in order, in one round trip; all are sent again where the reply to any was lost."""

        async def attempt() -> list[Any]:
            if not self._ready:
                await self._contact()
            return await self._exchange(calls)

        return await self._retrying(calls[0].op, attempt, self.retry_for if retry_for is None else retry_for)

    async def _exchange(self, calls: Sequence[Call[Any]]) -> list[Any]:
        for _ in range(MOVES * len(self.shards)):
            try:
                if len(calls) == 1 and not calls[0].parts:
                    return [await self._once(calls[0])]
                return await self._all(calls)
            except _Moved as moved:
                self._routes.moved(moved.shard, moved.error)
        raise redis.exceptions.TryAgainError("TRYAGAIN the nodes of the cluster do not agree who has a shard")

    async def _all(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """Run calls and parts of calls: those of one server in one round trip."""
        flat = [part for call in calls for part in call.parts or (call,)]
        nodes: dict[int, list[int]] = {}
        if self._routes.are_several:
            for at, part in enumerate(flat):
                nodes.setdefault(id(self._routes.of(part.shard)), []).append(at)
        else:
            nodes[0] = list(range(len(flat)))
        answers: list[Any] = [None] * len(flat)

        async def ask(places: list[int]) -> None:
            for at, answer in zip(places, await self._pipelined([flat[at] for at in places]), strict=True):
                answers[at] = answer

        if len(nodes) == 1:
            await ask(nodes.popitem()[1])
        else:
            for found in await asyncio.gather(*map(ask, nodes.values()), return_exceptions=True):
                if isinstance(found, BaseException):
                    raise found
        return gathered(calls, answers)

    async def _once(self, call: Call[T]) -> T:
        wire = self.server.wire(call)
        client = self._routes.of(call.shard)
        try:
            reply = await client.execute_command(*wire)
        except redis.exceptions.NoScriptError:
            await client.script_load(self.server.script(call.script).text)
            reply = await client.execute_command(*wire)
        except redis.exceptions.MovedError as error:
            raise _Moved(call.shard, error) from error
        except GONE:
            self._routes.lost(client)
            raise
        return call.read(reply)

    async def _pipelined(self, calls: Sequence[Call[Any]]) -> list[Any]:
        client = self._routes.of(calls[0].shard)
        pipe = client.pipeline(transaction=False)
        for call in calls:
            pipe.execute_command(*self.server.wire(call))
        try:
            replies = await pipe.execute(raise_on_error=False)
        except GONE:
            self._routes.lost(client)
            raise
        for at, call in enumerate(calls):
            if isinstance(replies[at], redis.exceptions.NoScriptError):
                # The others have run; this one has not, and runs now.
                await client.script_load(self.server.script(call.script).text)
                replies[at] = await client.execute_command(*self.server.wire(call))
            elif isinstance(replies[at], redis.exceptions.MovedError):
                raise _Moved(call.shard, replies[at])
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
                    for client in self._routes.all:
                        await client.connection_pool.disconnect(inuse_connections=False)
                await asyncio.sleep(pause)
            except _UNUSABLE as error:
                self.observer(op, time.perf_counter() - began, Failure.WRONG.value)
                raise unusable(error, op) from error
            else:
                self.observer(op, time.perf_counter() - began, "")
                return result

    def elsewhere(self) -> list[int]:
        """A shard of each server other than that of the first one, as far as they are known."""
        found = {id(self._routes.of(0)): -1}
        for number in range(len(self.shards)):
            found.setdefault(id(self._routes.of(number)), number)
        return [number for number in found.values() if number > 0]

    @property
    def client(self) -> aredis.Redis:
        """The connection pool's client, for tests and for looking around; the engine itself runs calls."""
        return self._routes.first

    async def wait_for_wake(self, queues: Sequence[str], timeout: float) -> str | None:
        """Block until one of the queues gets a job, at most ``timeout`` seconds; answers which. A hint: it may miss, and
        may lie. Who can't use it should ``pass_on``."""
        with self.surround():
            return await self._blocking.wait(queues, timeout)

    async def pass_on(self, queue: str) -> None:
        """Leave a wake-up to another worker."""
        number = self.shards.of(queue)
        with self.surround():
            await self._routes.of(number).execute_command("RPUSH", self.shards.keys[number].of("wake", queue), "1")

    async def finals(self) -> Any:
        """A subscription to the ends of watched jobs; its ``get_message`` answers with ``<id> <state>``."""
        # Of whichever node: in a cluster they tell each other what is published.
        subscription = self._routes.of(0).pubsub(ignore_subscribe_messages=True)
        await subscription.subscribe(*(keys.of(FINAL_CHANNEL) for keys in self.shards.keys))
        return subscription

    def channels(self, family: str) -> Channels:
        """An ear for the channels of a family."""
        return Channels(self._routes.of(0), [keys.of(family) + ":" for keys in self.shards.keys])

    async def aclose(self) -> None:
        """Close all connections. Calls made later raise ``BackendError``."""
        self.closed = True
        for client in self._routes.all:
            await client.aclose()
        await self._blocking.aclose()


class SyncStore:
    """Runs calls without an event loop: for the supervisor and the lease thread."""

    def __init__(
        self,
        url: str,
        shards: Shards | None = None,
        *,
        allow_eviction: bool = False,
        timeout: float = 3.0,
        retry_for: float = 5.0,
    ) -> None:
        self.shards = shards or Shards()
        self.server = Server(self.shards, url, allow_eviction=allow_eviction)
        self.commands = self.server.commands
        self.retry_for = retry_for
        self.observer: Observer = _ignore
        self.surround: Surround = nullcontext
        self._ready = False
        self._url, self._timeout = url, timeout
        self._routes = Routes(len(self.shards), self._open)

    def _open(self, address: Address | None) -> redis.Redis:
        retry = Retry(NoBackoff(), _NO_RETRY)
        try:
            client = redis.Redis.from_url(self._url, retry=retry, **client_options(self._url, self._timeout))
        except ValueError as error:
            raise ConfigError(f"redis_url is {self.server.shown_url!r}: {error}") from None
        if address is not None:
            client.connection_pool.connection_kwargs.update(host=address[0], port=address[1])
        return client

    def run(self, call: Call[T], *, retry_for: float | None = None) -> T:
        """Run one call, as ``AsyncStore.run`` does."""
        give_up = time.monotonic() + (self.retry_for if retry_for is None else retry_for)
        tries = 0
        while True:
            began = time.perf_counter()
            try:
                if not self._ready:
                    self.server.learn(self._routes.first.info())
                    self.server.welcome(self._ask(self.commands.hello(new_token(16))))
                    self._ready = True
                with self.surround():
                    reply = self._ask(call)
            except (redis.exceptions.RedisError, OSError, EOFError) as error:
                what = kind(error)
                self.observer(call.op, time.perf_counter() - began, what.value)
                pause = pause_before(tries)
                tries += 1
                if what not in (Failure.LOST, Failure.TRANSIENT) or time.monotonic() + pause > give_up:
                    raise explain(error, self.server.shown_url, call.op) from error
                if what is Failure.TRANSIENT:
                    for client in self._routes.all:
                        client.connection_pool.disconnect()
                time.sleep(pause)
            except _UNUSABLE as error:
                raise unusable(error, call.op) from error
            else:
                self.observer(call.op, time.perf_counter() - began, "")
                return reply

    def _ask(self, call: Call[T]) -> T:
        (answer,) = gathered([call], [self._once(part) for part in call.parts or (call,)])
        return cast(T, answer)

    def _once(self, call: Call[T]) -> T:
        wire = self.server.wire(call)
        for _ in range(MOVES):
            client = self._routes.of(call.shard)
            try:
                return call.read(client.execute_command(*wire))
            except redis.exceptions.NoScriptError:
                client.script_load(self.server.script(call.script).text)
            except redis.exceptions.MovedError as error:
                self._routes.moved(call.shard, error)
            except GONE:
                self._routes.lost(client)
                raise
        return call.read(self._routes.of(call.shard).execute_command(*wire))

    def close(self) -> None:
        """Close all connections."""
        for client in self._routes.all:
            client.close()
