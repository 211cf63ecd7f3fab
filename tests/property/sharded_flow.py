"""A store of several shards for tests of workflows. What they say to each other is carried when the test says so: some of it,
twice, or by somebody who fell asleep over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from rf_jobs.store import batch_calls, shard_calls
from rf_jobs.store.batch_calls import NewBatch
from rf_jobs.store.calls import Call
from rf_jobs.store.keys import Shards, plain, relative
from rf_jobs.store.options import Depends, Options
from rf_jobs.store.shapes import Leased, Retention
from rf_jobs.store.shard_calls import Words
from tests.property import snapshot
from tests.property.flow import KEEP_ALL, Flow, Luck
from tests.property.snapshot import Snapshot

T = TypeVar("T")
REFERENCES = ("parents", "dependents", "pending", "failed", "doomed", "undone")
SHARDS = 4


class ShardedFlow(Flow):
    """Queues a, b and calls are in three shards; groups are where the test wants them."""

    shards = Shards("rf", SHARDS, {"a": 1, "b": 2, "calls": 3})

    def __init__(self, url: str, keep: Retention = KEEP_ALL) -> None:
        super().__init__(url, keep)
        self.homes: dict[str, int] = {}
        """Where groups and jobs are."""
        self.home = 0
        """Where the next group is to be."""
        self.prompt = False
        """Whether all that is said is carried at once, as by a client that lives."""
        self.asleep: list[Words] = []
        """What somebody has read, and not brought yet."""

    def settle(self, most: int = 500) -> None:
        for _ in range(most):
            self.run(self.commands.settle())
            self.carry()
            if not self.outbox():
                return
        raise AssertionError("the outboxes never end")

    def run(self, call: Call[T]) -> T:
        reply = super().run(call)
        while self.prompt and (all_words := self.store.run(shard_calls.outgoing(self.commands))):
            for words in all_words:
                last = super().run(shard_calls.deliver(self.commands, words))
                self.store.run(shard_calls.delivered(words, last))
        return reply

    # --- what is carried -----------------------------------------------------------------------------------------

    def carry(self) -> None:
        """Bring what there is now, as ``Lifecycle`` does."""
        found = self.store.run(shard_calls.outgoing(self.commands))
        for words in shard_calls.one_way(found):
            self.bring(words)

    def bring(self, words: Words) -> None:
        self.store.run(shard_calls.delivered(words, self.run(shard_calls.deliver(self.commands, words))))

    def carry_some(self, luck: Luck) -> None:
        """Some of it; maybe without saying so to whom it is from, so that it is brought again."""
        found = self.store.run(shard_calls.outgoing(self.commands))
        if self.asleep and luck.random() < 0.3:
            self.bring(self.asleep.pop(luck.randrange(len(self.asleep))))
        if not found:
            return
        words = luck.choice(found)
        some = Words(
            words.source, words.target, words.entries[: 2 * luck.randint(1, len(words.entries) // 2)], words.total
        )
        what = luck.random()
        if what < 0.2:
            self.asleep.append(some)
        elif what < 0.4:
            self.run(shard_calls.deliver(self.commands, some))
        else:
            self.bring(some)

    # --- what is seen --------------------------------------------------------------------------------------------

    def look(self) -> Snapshot:
        """All shards as if they were one."""
        merged = Snapshot(0, "{rf}:")
        prefixes = [keys.prefix for keys in self.shards.keys]
        for prefix in prefixes:
            seen = snapshot.take(self.client, prefix)
            merged.now_ms = seen.now_ms
            merged.add(seen)
            merged.foreign = [key for key in seen.foreign if not key.startswith(tuple(prefixes))]
        for (family, name), members in merged.sets.items():
            if family in REFERENCES:
                merged.sets[family, name] = {plain(member) for member in members}
        for (family, _), fields in merged.hashes.items():
            if family == "meta" and "undone" in fields:
                fields["undone"] = plain(fields["undone"])
        return merged

    # --- what a client does --------------------------------------------------------------------------------------

    def enqueue(
        self, ids: Sequence[str], asked: Options | None = None, queue: str = "a", when: str = ""
    ) -> dict[int, tuple[str, str]]:
        """As ``Placer`` does it."""
        asked, shard = asked or Options(), self.shards.of(queue)
        known = self.look()
        standing = known.job_ids() | known.group_ids()

        def ref(each: str) -> str:
            return relative(each, self.homes[each], shard) if each in standing else each

        if asked.depends is not None:
            asked.depends = Depends([ref(each) for each in asked.depends.parents], asked.depends.failure)
        group, home = asked.batch, self.homes.get(asked.batch, shard)
        if group and home != shard:
            refs = [f"{shard}|{each}" for each in ids]
            shut, *last = self.run(batch_calls.expect(home, group, refs, behind=asked.behind))
            if shut:
                return dict.fromkeys(range(len(ids)), ("batch", shut))
            if last:
                others = asked.depends.parents if asked.depends is not None else []
                asked.depends = Depends([relative(last[0], home, shard), *others], "cancel")
                asked.behind = False
            asked.batch = f"{home}|{group}"
        said = super().enqueue(ids, asked, queue, when)
        self.homes.update(dict.fromkeys(ids, shard))
        return said

    def new_batch(self, batch: str, outer: str = "", **fields: str) -> NewBatch:
        if "last" in fields:  # it will be on queue a
            fields["last"] = relative(fields["last"], self.shards.of("a"), self.home)
        made = super().new_batch(batch, "", **fields)
        self.homes[batch] = self.home
        if not outer:
            return NewBatch(batch, "", made.fields, self.home)
        home = self.homes.get(outer, self.home)
        if home != self.home:
            call = batch_calls.expect(home, outer, [f"{self.home}|{batch}"])
            assert self.run(call) == [""]
        return NewBatch(batch, relative(outer, home, self.home), made.fields, self.home)

    def callback(self, batch: str, event: str) -> bytes:
        ((*draft,),) = msgspec.json.decode(super().callback(batch, event))
        shard = self.shards.of("calls")
        return msgspec.json.encode([draft if shard == self.home else [*draft, str(shard)]])

    def seal(self, *batches: str) -> None:
        self.run(batch_calls.seal(self.commands, [NewBatch(each, "", {}, self.homes.get(each, 0)) for each in batches]))

    # --- what a worker does --------------------------------------------------------------------------------------

    def fetch(self, wanted: int, queues: Sequence[str] = ("a",)) -> list[Leased]:
        found: list[Leased] = []
        for queue in queues:
            if len(found) < wanted:
                found += super().fetch(wanted - len(found), [queue])
        return found
