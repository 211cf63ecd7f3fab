"""The event bus: who hears of what."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from rf_jobs.model.events.base import Event

log = logging.getLogger("rf_jobs.events")
E = TypeVar("E", bound=Event)
Handler = Callable[[Any], None]


class EventBus:
    """Delivers events to subscribers by their exact type."""

    def __init__(self) -> None:
        self._handlers: dict[type[Event], tuple[Handler, ...]] = {}

    def subscribe(self, kind: type[E], handler: Callable[[E], None]) -> Callable[[], None]:
        """Call ``handler`` for each event of ``kind`` or of a type below it; the answer ends the subscription."""
        kinds = kinds_of(kind)
        for each in kinds:
            self._handlers[each] = (*self._handlers.get(each, ()), handler)

        def unsubscribe() -> None:
            for each in kinds:
                self._handlers[each] = tuple(h for h in self._handlers[each] if h is not handler)

        return unsubscribe

    def wants(self, kind: type[Event]) -> bool:
        """Whether anyone listens, for emitters that would have to work for an event."""
        return bool(self._handlers.get(kind))

    def emit(self, event: Event) -> None:
        """Deliver one event."""
        for handler in self._handlers.get(type(event), ()):
            try:
                handler(event)
            except Exception:
                log.exception("a subscriber failed on %s", type(event).__name__)

    def emit_all(self, events: Iterable[Event]) -> None:
        """Deliver several, in order."""
        handlers = self._handlers
        for event in events:
            if type(event) in handlers:
                self.emit(event)


def kinds_of(kind: type[Event]) -> list[type[Event]]:
    """It, and all below it."""
    found = [kind]
    for below in kind.__subclasses__():
        found += kinds_of(below)
    return found
