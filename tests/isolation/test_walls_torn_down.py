"""The same attacks with a wall missing: those that it stopped get through, so the matrix can fail.

The engine is a plain one, and the tenant a hand-written SET: what is looked at is the database
alone. That the layer notices the missing wall and stands in for it is proven at the end.
"""

import secrets
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL

from assay.models import Base
from tenantry import DEFAULT_CONFIG, ConfigurationError, create_tenant_engine, set_tenant
from tenantry.database import TENANCY_OPTION
from tenantry.testing import Database
from tenantry.testing.attacks import Command
from tenantry.testing.attacks_arena import Arena, Situation
from tenantry.testing.attacks_observer import Observer
from tenantry.testing.attacks_seeds import seed_tenant
from tenantry.testing.attacks_surfaces import Bind, bind_plainly
from tenantry.testing.matrix import COMMANDS, SITUATIONS, attacks, run_matrix

Run = Callable[..., set[Command]]

PROBES: Final[set[Command]] = {
    "probe",
    "probe, do nothing",
    "probe, do update",
}
# What row security stops, and nothing else does.
ROWS: Final[set[Command]] = set(COMMANDS) - PROBES - {"refer", "truncate"}


class Ruin:
    """A migrated database with rows of two tenants, whose walls a test tears down."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.attacker, self.victim = uuid.uuid4(), uuid.uuid4()
        self.superuser = create_engine(database.superuser_url)
        for tenant in (self.attacker, self.victim):
            with self.superuser.begin() as connection:
                seed_tenant(connection, Base.metadata, tenant)

    def tear_down(self, *statements: str) -> None:
        """Execute the statements as superuser, `users` being the table under attack."""
        with self.superuser.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    @contextmanager
    def arena(
        self, engine: Engine | None = None, bind: Bind | None = None, url: URL | None = None
    ) -> Iterator[Arena]:
        """Yield the arena, by default of a plain engine as the application's login."""
        plain = create_engine(url or self.database.app_url, pool_size=1, max_overflow=0)
        with Arena(
            plain if engine is None else engine,
            Observer(self.superuser, Base.metadata),
            attacker=self.attacker,
            victim=self.victim,
            bind=bind or bind_plainly(DEFAULT_CONFIG),
        ) as arena:
            yield arena
        plain.dispose()

    def got_through(
        self,
        table: str = "users",
        *,
        situations: tuple[Situation, ...] = ("own tenant",),
        url: URL | None = None,
    ) -> set[Command]:
        """Return the commands that get through on every surface that can say them.

        Any that gets through on some and is stopped on others fails here, and so does one that
        is stopped by something else than a wall.
        """
        with self.arena(url=url) as arena:
            outcomes = run_matrix(arena, attacks(arena, tables=[table], situations=situations))
        assert [str(o) for o in outcomes if o.verdict == "inconclusive"] == []
        through = {o.attack.command for o in outcomes if not o.stopped}
        if table == "users":
            # A key that tells of the victim spoils the attack by the other keys only where it is
            # not the one that ON CONFLICT names.
            half = {o.attack.command for o in outcomes if o.stopped} & through
            assert half <= {"probe, do update"}
        return through


@pytest.fixture
def ruin(fresh_database: Database, unprivileged_app: None) -> Iterator[Ruin]:
    """Return a database of the test's own with all its walls, and rows to attack."""
    ruin = Ruin(fresh_database)
    yield ruin
    ruin.superuser.dispose()


def test_nothing_gets_through_while_all_walls_stand(ruin: Ruin) -> None:
    """The attacks start from a closed database: what follows is due to the missing wall."""
    assert ruin.got_through() == set()


@pytest.mark.parametrize(
    "policies",
    [["users_tenant"], ["users_tenant_wall"], ["users_tenant", "users_tenant_wall"]],
    ids="+".join,
)
def test_dropping_policies_fails_closed(ruin: Ruin, policies: list[str]) -> None:
    """Without one of the two policies, or both, row security still lets nothing through."""
    ruin.tear_down(*(f"drop policy {policy} on users" for policy in policies))
    assert ruin.got_through() == set()


def test_disabled_row_security_lets_rows_through(ruin: Ruin) -> None:
    """Policies without ENABLE are no wall; the keys, which carry the tenant, still hold."""
    ruin.tear_down("alter table users disable row level security")
    assert ruin.got_through() == ROWS


def test_an_open_policy_beside_the_wall_lets_nothing_through(ruin: Ruin) -> None:
    """A second permissive policy is OR-ed with the first one, and the wall holds against both."""
    ruin.tear_down("create policy open on users using (true) with check (true)")
    assert ruin.got_through() == set()


def test_an_open_policy_without_the_wall_lets_rows_through(ruin: Ruin) -> None:
    """What the RESTRICTIVE policy is for."""
    ruin.tear_down(
        "create policy open on users using (true) with check (true)",
        "drop policy users_tenant_wall on users",
    )
    # COPY FROM does not exist for a table with row security, whatever its policies say.
    assert ruin.got_through() == ROWS - {"copy in"}


def test_a_wall_that_checks_nothing_lets_rows_in(ruin: Ruin) -> None:
    """With CHECK (true) rows are planted in another tenant and moved to it, though none is read.

    A row that is named in a condition must stay readable after the UPDATE, so it is not moved.
    """
    ruin.tear_down(
        "drop policy users_tenant_wall on users",
        "create policy users_tenant_wall on users as restrictive using (organization_id = "
        "nullif(current_setting('app.current_organization', true), '')::uuid) with check (true)",
        "create policy open on users using (true)",
    )
    assert ruin.got_through() == {"insert", "move everything away"}


def test_an_owner_without_force_gets_through(ruin: Ruin) -> None:
    """The owner is exempt from row security unless it is forced, and may TRUNCATE."""
    ruin.tear_down(
        "alter table users no force row level security",
        f"alter table users owner to {ruin.database.app_url.username}",
    )
    assert ruin.got_through() == ROWS | {"truncate"}


def test_an_owner_under_force_reads_nothing_more(ruin: Ruin) -> None:
    """FORCE is what binds the owner; TRUNCATE is not a matter of row security."""
    ruin.tear_down(f"alter table users owner to {ruin.database.app_url.username}")
    assert ruin.got_through() == {"truncate"}


def test_a_login_with_bypassrls_gets_through(ruin: Ruin) -> None:
    """BYPASSRLS is the whole wall gone; a login of the test's own has it, roles are shared."""
    login, password = f"tenantry_{secrets.token_hex(6)}", secrets.token_hex(12)
    database = ruin.database
    ruin.tear_down(
        f"create role {login} login bypassrls in role tenantry_app password '{password}'",
        f'grant connect on database "{database.name}" to {login}',
    )
    try:
        url = database.app_url.set(username=login, password=password)
        assert ruin.got_through(url=url) == ROWS
    finally:
        ruin.tear_down(
            f'revoke connect on database "{database.name}" from {login}', f"drop role {login}"
        )


def test_truncate_granted_empties_the_table(ruin: Ruin) -> None:
    """Row security does not cover TRUNCATE: the grant is the wall."""
    ruin.tear_down("grant truncate on test_results to tenantry_app")
    assert ruin.got_through("test_results") == {"truncate"}


def test_a_foreign_key_on_the_id_alone_reaches_the_other_tenant(ruin: Ruin) -> None:
    """Foreign keys are checked without row security: one without the tenant refers across."""
    ruin.tear_down(
        "alter table users add constraint uq_users_id unique (id)",
        "alter table api_tokens drop constraint fk_api_tokens_organization_id_user_id",
        "alter table api_tokens add constraint fk_api_tokens_user_id foreign key (user_id) "
        "references users (id)",
    )
    through = ruin.got_through("api_tokens")
    assert "refer" in through
    assert through <= {"refer", *PROBES}


@pytest.mark.parametrize("key", ["unique (email)", "exclude using btree (email with =)"])
def test_a_key_without_the_tenant_tells_of_the_other(ruin: Ruin, key: str) -> None:
    """A unique key over all tenants answers differently to a value that another one has."""
    ruin.tear_down(
        "alter table users drop constraint uq_users_organization_id_email",
        f"alter table users add constraint uq_users_email {key}",
    )
    assert ruin.got_through() == PROBES


def test_a_plain_set_leaks_through_the_pool(ruin: Ruin) -> None:
    """With the walls standing and no layer, a pooled connection is still the last tenant's."""
    with ruin.arena() as arena:
        outcomes = run_matrix(arena, attacks(arena, tables=["users"], commands=["read"]))
    leaking = {o.attack.situation for o in outcomes if not o.stopped}
    assert leaking >= {"after rollback", "reused, no tenant"}
    assert "reused connection" not in leaking


def test_a_layer_that_writes_nothing_at_begin_and_at_reset_leaks(ruin: Ruin) -> None:
    """Writing the tenant at each begin, and clearing it on return, is what stops those."""
    engine = create_tenant_engine(
        ruin.database.app_url, mode="database", pool_size=1, max_overflow=0
    )
    tenancy = engine.get_execution_options()[TENANCY_OPTION]
    tenancy.on_begin = lambda _: None
    event.remove(engine, "reset", tenancy.on_reset)
    with ruin.arena(engine, set_tenant) as arena:
        outcomes = run_matrix(arena, attacks(arena, tables=["users"], commands=["read"]))
    assert "reused, no tenant" in {o.attack.situation for o in outcomes if not o.stopped}


def test_the_layer_stands_in_for_disabled_row_security(ruin: Ruin) -> None:
    """In mode auto it notices, filters what it can and refuses the rest: nothing gets through."""
    ruin.tear_down(
        *(f"alter table {table} disable row level security" for table in Base.metadata.tables)
    )
    engine = create_tenant_engine(
        ruin.database.app_url, metadata=Base.metadata, pool_size=1, max_overflow=0
    )
    with ruin.arena(engine, set_tenant) as arena, ExitStack() as stack:
        stack.callback(engine.dispose)
        chosen = attacks(arena, tables=["users", "api_tokens", "test_set_tests"])
        outcomes = run_matrix(arena, chosen)
        assert [str(outcome) for outcome in outcomes if not outcome.stopped] == []
        assert {outcome.attack.situation for outcome in outcomes} == set(SITUATIONS)
        assert arena.changed_tables() == []


def test_a_blind_write_is_seen_in_the_victims_rows(ruin: Ruin) -> None:
    """An attack that is told of 0 rows, and writes behind that, is found by the digest."""
    ruin.tear_down(
        "create function write_behind() returns trigger language plpgsql security definer "
        "set search_path = pg_catalog, public, pg_temp as $$ begin "
        "update public.users set name = name || '!'; return null; end $$",
        "create trigger write_behind after delete on users for each statement "
        "execute function write_behind()",
    )
    assert ruin.got_through() >= {"delete"}


def test_attacking_oneself_is_refused(ruin: Ruin) -> None:
    """The arena needs two organizations, or every attack would be on the attacker's own rows."""
    observer = Observer(ruin.superuser, Base.metadata)
    with pytest.raises(ConfigurationError, match="the same organization"):
        Arena(ruin.superuser, observer, attacker=ruin.attacker, victim=ruin.attacker)
