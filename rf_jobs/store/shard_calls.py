"""Calls that carry what shards have to say to each other; see lib/abroad.lua."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rf_jobs.store.calls import Arg, Call, text
from rf_jobs.store.commands import Commands

WORDS = 200
"""That one call carries from a shard to another."""


@dataclass(frozen=True)
class Words:
    """What a shard says to another, in order."""

    source: int
    target: int
    entries: list[bytes]
    """Id and word, in turn."""
    total: int
    """How many words there were, with those that are left for the next time."""

    def is_all(self, last: str) -> bool:
        """Whether nothing is left, that one knows of, when it is done up to this id."""
        return len(self.entries) == 2 * self.total and text(self.entries[-2]) == last


def outgoing(commands: Commands) -> Call[list[Words]]:
    """What is to be carried, the oldest of it."""

    def make(number: int) -> Call[list[Words]]:
        def read(r: Any) -> list[Words]:
            return [Words(number, int(r[i]), r[i + 1], int(r[i + 2])) for i in range(0, len(r), 3)]

        return Call("admin", (WORDS, len(commands.shards)), read, "outgoing", shard=number)

    return commands.everywhere(
        lambda _, number: make(number), lambda answers: [one for some in answers for one in some]
    )


def one_way(found: Sequence[Words]) -> list[Words]:
    """Some of them, so that no shard both speaks and is spoken to. What crosses on its way has two shards act on what is out of
    date: a replay and a cancellation that meet so every time would answer each other for ever."""
    chosen: list[Words] = []
    speakers: set[int] = set()
    listeners: set[int] = set()
    for words in found:
        if words.source not in listeners and words.target not in speakers:
            chosen.append(words)
            speakers.add(words.source)
            listeners.add(words.target)
    return chosen


def deliver(commands: Commands, words: Words) -> Call[str]:
    """Have a shard do what another said. Answers with the id of the last word that is done."""
    args: list[Arg] = [*commands.retention.args(), words.target, words.source, *words.entries]
    return Call("admin", args, lambda r: text(r[3]), "deliver", 0, words.target)


def delivered(words: Words, last: str) -> Call[int]:
    """Forget what was said and is done, up to this id."""
    return Call("admin", (words.target, last), int, "sent", shard=words.source)


def claim(wanted: Mapping[str, int]) -> Call[list[int]]:
    """Say in which shards these are. Answers with where they are, if somebody has said it before."""
    return Call("admin", [arg for pair in wanted.items() for arg in pair], list, "claim")
