"""What the server keeps of statements that carry their tenant with them stays of use."""

from collections.abc import Iterator
from typing import get_args

import pytest
from sqlalchemy import select
from tests.conftest import Migrate
from tests.fixtures.worlds import (
    WAYS,
    A,
    B,
    Wall,
    World,
    bound,
    cursor_of,
    new_world,
)

from assay.models import TestSet
from tenantry.config import ContextWay
from tenantry.embedded import EmbeddedServer, Login
from tenantry.testing import Server

# As commands, of which only PostgreSQL 18 and later leave the values out, and as a query.
_CONTEXTS = {
    True: ['set local "app"."current_organization" = $1', 'set local "app"."current_user" = $1'],
    False: ["select pg_catalog.set_config($1, $2, $3), pg_catalog.set_config($4, $5, $6)"],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tenantry_migrate: Migrate) -> Iterator[World]:
    """Return rows on a server of the module's own that counts statements."""
    own = EmbeddedServer(tmp_path_factory.mktemp("server"), durable=False)
    own.start()
    try:
        with cursor_of(own.url("superuser", "postgres")) as cursor:
            cursor.execute("alter system set shared_preload_libraries = 'pg_stat_statements'")
        own.stop()
        own.start()
        logins = {login: own.url(login, "postgres") for login in get_args(Login)}
        server = Server(
            name="embedded",
            version=own.version,
            superuser=True,
            logins=logins,
            _release=own.stop,
        )
        template = server.create_database()
        tenantry_migrate(template.owner_url, template.app_url)
        with new_world(server, template.name) as world:
            with cursor_of(world.walled.superuser_url) as cursor:
                cursor.execute("create extension pg_stat_statements")
            yield world
    finally:
        own.reset()


@pytest.mark.parametrize("way", WAYS)
def test_statements_are_counted_apart_from_their_tenants(world: World, way: ContextWay) -> None:
    """pg_stat_statements has one entry for the query and as many for all contexts as for one."""
    with world.engine(Wall("database", "transaction", way)) as engine:
        with bound(engine, A) as session:
            session.scalars(select(TestSet)).all()
        with cursor_of(world.walled.superuser_url) as cursor:
            cursor.execute("select pg_stat_statements_reset()")
        for tenant in (A, B):
            with bound(engine, tenant) as session:
                session.scalars(select(TestSet).where(TestSet.name == "a1")).all()
                session.commit()
    with cursor_of(world.walled.superuser_url) as cursor:
        cursor.execute(
            "select s.query, s.calls from pg_stat_statements s join pg_roles r on r.oid = s.userid "
            "where r.rolname = 'tenantry_login'"
        )
        calls = {query.lower(): calls for query, calls in cursor.fetchall()}
        commands = way != "separate" and cursor.connection.server_version >= 180000
    contexts = sorted(query for query in calls if query.startswith(("set ", "select pg_catalog.")))
    queries = [query for query in calls if "from test_sets" in query]
    assert contexts == _CONTEXTS[commands]
    assert {calls[query] for query in (*contexts, *queries)} == {2}
    assert len(queries) == 1
    assert queries[0].startswith("select test_sets.")
    assert not any(str(tenant) in query for query in calls for tenant in (A, B))
