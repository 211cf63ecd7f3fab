"""The program of a supervised worker process: ``python -m rf_jobs.worker.child_main NAME ORDERS-FD TABLE-FD``."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys

import msgspec

from rf_jobs.model.importing import import_modules
from rf_jobs.words.errors import RfJobsError, WorkerError
from rf_jobs.worker.child import run_child
from rf_jobs.worker.commission import NEXT_STAGE, PROTOCOL, SIGNALS, Attach, Commission, Failure, equipment, receive
from rf_jobs.worker.config import QueueOrder
from rf_jobs.worker.leases import LeaseTable

log = logging.getLogger("rf_jobs.worker")


def main() -> None:
    """Ends the process: whatever threads handlers may have left behind, nobody waits for them."""
    orders = socket.socket(fileno=int(sys.argv[2]))
    code = 1
    try:
        code = _serve(orders, int(sys.argv[3]))
    except EOFError:
        pass
    except RfJobsError as error:
        _say(orders, Failure(type(error).__name__, str(error)))
    except BaseException as error:
        log.exception("the worker process failed")
        _say(orders, Failure("", f"{type(error).__name__}: {error}"))
    finally:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _serve(orders: socket.socket, table: int) -> int:
    for number in SIGNALS:  # a terminal sends them to all of the group; the supervisor passes on what they mean
        signal.signal(number, signal.SIG_IGN)
    stops = [signal.SIGTERM, NEXT_STAGE]
    for number in stops:
        signal.signal(number, signal.SIG_DFL)  # nothing is held yet
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [*SIGNALS, NEXT_STAGE])
    line, rest = receive(orders)
    commission = _read(line)
    sys.path += [each for each in commission.path if each not in sys.path]
    attach = _prepare(commission)
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    queues = QueueOrder(commission.worker.queues, commission.settings.jobs.default_queue).names
    return run_child(commission, LeaseTable.opened(table, commission.capacity, queues), orders, rest, attach)


def _read(line: bytes) -> Commission:
    protocol = msgspec.json.decode(line)["protocol"]
    if protocol != PROTOCOL:
        raise WorkerError(
            f"the supervisor speaks protocol {protocol} and this version of rf-jobs {PROTOCOL}: rf-jobs itself was changed"
            " under it; restart it (a rolling restart renews the code of jobs alone)"
        )
    return msgspec.json.decode(line, type=Commission)


def _prepare(commission: Commission) -> Attach | None:
    if commission.equip:
        return equipment(commission.equip)(commission)
    import_modules(commission.settings.jobs.imports)
    return None


def _say(orders: socket.socket, failure: Failure) -> None:
    """To the supervisor, if it still listens."""
    orders.setblocking(True)
    orders.settimeout(1.0)
    with contextlib.suppress(OSError):
        orders.sendall(msgspec.json.encode(failure) + b"\n")


if __name__ == "__main__":
    main()
