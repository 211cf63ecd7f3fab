"""BullMQ on Node: the fastest of the durable ones, and the one to beat."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, cast

from benchmarks.peer import HERE, ROOT, Command, Peer, PeerUnavailableError, run_setup

if TYPE_CHECKING:
    from redis import Redis

FOLDER = HERE / "bullmq"
MODULES = FOLDER / "node_modules"


class BullMq(Peer):
    name = "BullMQ"
    bulk = True
    scale = 4
    probes = 2

    def install(self) -> None:
        for program in ("node", "npm"):
            if shutil.which(program) is None:
                raise PeerUnavailableError(f"no {program} on the PATH; install Node 18 or newer to measure it too")
        # BullMQ pins its own dependencies, so exact versions in package.json do what a lock file would.
        stamp, wanted = MODULES / ".installed", (FOLDER / "package.json").read_text()
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        print(f"installing bullmq into {MODULES.relative_to(ROOT)}", file=sys.stderr)
        # Its peers node-redis, pg and OpenTelemetry are for other backends than the one measured; the optional native
        # part of msgpackr comes ready-made, so no script needs to run.
        flags = ["--omit=peer", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
        run_setup(["npm", "install", *flags], FOLDER)
        stamp.write_text(wanted)

    def client(self) -> Command:
        return Command(["node", str(FOLDER / "client.mjs")], {"NODE_ENV": "production"})

    def worker(self, redis_url: str) -> Command:
        return Command(["node", str(FOLDER / "worker.mjs")], {"NODE_ENV": "production"})

    def remaining(self, server: Redis) -> int:
        pipe = server.pipeline(transaction=False)
        pipe.llen("bull:bench:wait")
        pipe.llen("bull:bench:active")
        return sum(cast("list[int]", pipe.execute()))

    def versions(self) -> dict[str, str]:
        found = {
            name: json.loads((MODULES / name / "package.json").read_text())["version"] for name in ("bullmq", "ioredis")
        }
        node = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True)
        return {**found, "node": node.stdout.strip().removeprefix("v")}
