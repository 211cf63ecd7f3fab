"""``rf-jobs outbox``, and what else stands around an outbox: migrations, spans."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from click.testing import CliRunner
from sqlalchemy.orm import Session

from rf_jobs import Relay, configure
from rf_jobs.cli.app import app
from rf_jobs.contrib.sqlalchemy import Outbox
from rf_jobs.model import events as ev
from tests.contrib.shop import Base, outbox
from tests.support.jobs import Add
from tests.support.processes import process, rf_jobs, said, wait_until
from tests.support.tracing import Traced, attribute, lab, under


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with a source, and with what is none."""
    made = ModuleType("a_shop")
    made.source = outbox.source(sa.create_engine("sqlite://"))  # type: ignore[attr-defined]
    made.outbox = outbox  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_shop", made)
    return made


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("a_shop", "'a_shop' names no object; give MODULE:NAME, such as shop.db:source"),
        ("a_shop:", "names no object"),
        ("a_shop:outbox", "give the source of an outbox, such as outbox.source(engine)"),
        ("a_shop:nothing", "a_shop:nothing is None"),
        ("no_such_shop:source", "the module 'no_such_shop' was not found"),
        ("shop/db.py:source", "is a path; name the module as an import does"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_arguments_that_are_wrong(named: str, message: str) -> None:
    result = CliRunner().invoke(app, ["outbox", named])
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.usefixtures("shop")
def test_no_server() -> None:
    result = CliRunner().invoke(app, ["outbox", "a_shop:source", "--redis-url", "redis://127.0.0.1:1/0"])
    assert result.exit_code == 3
    assert "no answer" in result.output


def test_it_runs_and_ends_in_order(configured: str, database: tuple[str, str], tmp_path: Path) -> None:
    engine = sa.create_engine(database[0])
    Base.metadata.create_all(engine)
    env = {
        "RF_JOBS_REDIS_URL": configured,
        "RF_JOBS_TEST_DATABASE": database[1],
        "PYTHONWARNINGS": "always::ResourceWarning",
    }
    log = tmp_path / "log"
    with process(*rf_jobs("outbox", "tests.contrib.shop:source"), log=log, env=env) as relay:
        said(relay, log, "the relay of outbox rf_jobs_outbox starts")
        with Session(engine) as session, session.begin():
            outbox.dispatch(session, Add(a=1, b=2))

        def moved() -> bool:
            with engine.connect() as connection:
                return connection.scalar(sa.select(sa.func.count()).select_from(outbox.table)) == 0

        wait_until(moved, "it is moved")
    engine.dispose()
    assert relay.returncode == 0
    assert "the relay of outbox rf_jobs_outbox has stopped" in log.read_text()
    assert "Error" not in log.read_text()
    assert "Traceback" not in log.read_text()


def test_alembic_finds_nothing_to_do_once_the_table_is_there(database: tuple[str, str]) -> None:
    metadata = sa.MetaData()
    Outbox(metadata, table="jobs_to_send")
    engine = sa.create_engine(database[0])
    with engine.connect() as connection:
        before = compare_metadata(MigrationContext.configure(connection), metadata)
        assert [each[0] for each in before] == ["add_table"]
        metadata.create_all(connection)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_two_outboxes_with_names_of_their_own(configured: str, tmp_path: Path) -> None:
    metadata = sa.MetaData()
    one, two = Outbox(metadata, table="one"), Outbox(metadata, table="two")
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'db'}")
    metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        one.dispatch(session, Add(a=1, b=2))
        two.dispatch(session, Add(a=1, b=2))
    with engine.connect() as connection:
        counts = [connection.scalar(sa.select(sa.func.count()).select_from(each.table)) for each in (one, two)]
    engine.dispose()
    assert counts == [1, 1]


async def test_a_trace_from_the_transaction_to_the_run(redis_url: str, tmp_path: Path) -> None:
    """The span of the dispatch ends with the row: what sends it may be another process."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'db'}")
    Base.metadata.create_all(engine)
    source = outbox.source(engine)
    async with lab(redis_url) as it:
        configure(it.manager)
        try:
            with it.tracer.start_as_current_span("request"), Session(engine) as session, session.begin():
                outbox.dispatch(session, Traced())
            send = await it.span("send traced")
            assert attribute(send, "rf_jobs.dispatch.result") == "outboxed"
            assert under(send, await it.span("request"))
            await Relay(it.manager, source).step()
            await it.until(ev.JobCompleted)
            run = await it.span("process traced")
        finally:
            configure(None)
    await source.aclose()
    engine.dispose()
    assert under(run, send)
