"""Every tenant table of the metadata, attacked with every command by every way in every situation.

Nothing here names a table: a new one is attacked as soon as it is mapped.
"""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import BigInteger, Column, MetaData, Table, create_engine
from sqlalchemy.engine import URL
from tests.fixtures.worlds import WAYS

from assay.models import Base
from tenantry import DEFAULT_CONFIG, ConfigurationError, create_tenant_engine, set_tenant
from tenantry.models import tenant_column
from tenantry.testing import Database
from tenantry.testing.attacks import Attack
from tenantry.testing.attacks_arena import Arena, Situation
from tenantry.testing.attacks_observer import Observer
from tenantry.testing.attacks_seeds import seed_tenant
from tenantry.testing.attacks_surfaces import Answer, Surface, bind_plainly
from tenantry.testing.matrix import COMMANDS, SITUATIONS, SURFACES, attacks, run_matrix

TABLES = [
    table.fullname for table in Base.metadata.sorted_tables if tenant_column(table) is not None
]
BOUND: list[Situation] = ["own tenant", "after commit", "reused connection"]


@pytest.fixture(scope="module", params=WAYS)
def arena(
    tenantry_database: Database, app_url: URL, request: pytest.FixtureRequest
) -> Iterator[Arena]:
    """Return two organizations with a row in every tenant table, one of them under attack."""
    attacker, victim = uuid.uuid4(), uuid.uuid4()
    engine = create_tenant_engine(
        app_url,
        mode="database",
        context=request.param,
        metadata=Base.metadata,
        pool_size=1,
        max_overflow=0,
    )
    for tenant in (attacker, victim):
        with engine.connect() as connection:
            set_tenant(connection, tenant)
            seed_tenant(connection, Base.metadata, tenant)
            connection.commit()
    superuser = tenantry_database.server.superuser
    watching = create_engine(tenantry_database.superuser_url if superuser else app_url)
    with ExitStack() as stack:
        stack.callback(watching.dispose)
        observer = Observer(watching, Base.metadata)
        yield stack.enter_context(Arena(engine, observer, attacker=attacker, victim=victim))


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("table", TABLES)
def test_no_attack_on_another_tenant_gets_through(
    arena: Arena, table: str, surface: Surface
) -> None:
    """Every command in every situation is stopped, and the victim's rows stay byte for byte."""
    outcomes = run_matrix(arena, attacks(arena, tables=[table], surfaces=[surface]))
    assert [str(outcome) for outcome in outcomes if not outcome.stopped] == []
    assert arena.changed_tables() == []
    assert {outcome.attack.situation for outcome in outcomes} == set(SITUATIONS)


def test_no_attack_gets_through_with_settings_that_end_with_the_transaction(
    arena: Arena, app_url: URL, request: pytest.FixtureRequest
) -> None:
    """The scope that a transaction pooler asks for is as tight on each surface."""
    engine = create_tenant_engine(
        app_url,
        mode="database",
        scope="transaction",
        context=request.node.callspec.params["arena"],
        metadata=Base.metadata,
        pool_size=1,
        max_overflow=0,
    )
    watching = create_engine(app_url)
    observer = Observer(watching, Base.metadata)
    with Arena(engine, observer, attacker=arena.attacker, victim=arena.victim) as local:
        outcomes = run_matrix(local, attacks(local, tables=["test_set_tests"]))
        assert [str(outcome) for outcome in outcomes if not outcome.stopped] == []
        assert local.changed_tables() == []
    watching.dispose()


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("situation", BOUND)
def test_attacker_reads_all_of_its_own_rows_meanwhile(
    arena: Arena, surface: Surface, situation: Situation
) -> None:
    """The attacks fail for the wall, not for want of a tenant: the attacker sees its own rows."""
    for target in arena.targets.values():
        with arena.position(surface, situation) as hand:
            owners = hand.execute(hand.relation(target).owners()).owners
            hand.rollback()
        assert owners == (str(arena.attacker),) * target.own_count


def test_every_command_is_tried_on_every_table(arena: Arena) -> None:
    """No table escapes a command, except `refer` where a table has no reference."""
    tried = {(attack.table, attack.command) for attack in attacks(arena)}
    for name, target in arena.targets.items():
        expected = set(COMMANDS) if target.references else set(COMMANDS) - {"refer"}
        assert {command for table, command in tried if table == name} == expected


def test_every_foreign_key_and_every_unique_constraint_is_tried(arena: Arena) -> None:
    """Each reference to a tenant table and each key has an attack of its own."""
    tried = {attack.constraint for attack in attacks(arena)}
    for target in arena.targets.values():
        assert tried >= {key.name for key in target.keys if key.constraint is not None}
        assert tried >= set(target.references)


def test_table_without_a_row_of_each_side_is_refused(arena: Arena, app_url: URL) -> None:
    """A table that has nothing to steal fails loudly instead of passing unattacked."""
    engine = create_engine(app_url)
    nobody = uuid.uuid4()
    with pytest.raises(ConfigurationError, match=r"no row in tenant table 'organizations'"):
        Observer(engine, Base.metadata).targets(arena.attacker, nobody)
    engine.dispose()


def test_values_that_both_sides_have_are_refused(fresh_database: Database) -> None:
    """A key that the attacker has as well would look like one that tells of the victim."""
    engine = create_engine(fresh_database.app_url)
    tenants = uuid.uuid4(), uuid.uuid4()
    for tenant in tenants:
        with engine.begin() as connection:
            bind_plainly(DEFAULT_CONFIG)(connection, tenant)
            same = {"users.email": "ada@example.org"}
            seed_tenant(connection, Base.metadata, tenant, examples=same)
    with pytest.raises(ConfigurationError, match=r"the same values in key 'uq_users_\w+_email'"):
        Observer(engine, Base.metadata).targets(*tenants)
    engine.dispose()


def test_metadata_without_a_tenant_table_is_refused(app_url: URL) -> None:
    """Attacking nothing is no proof."""
    metadata = MetaData()
    Table("countries", metadata, Column("id", BigInteger, primary_key=True))
    engine = create_engine(app_url)
    with pytest.raises(ConfigurationError, match="no tenant table"):
        Observer(engine, metadata).targets(uuid.uuid4(), uuid.uuid4())
    engine.dispose()


def test_an_error_that_no_wall_gives_is_not_taken_for_one(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attack with a mistake in it is inconclusive, which fails the matrix."""
    attack = Attack(command="read", table="users", surface="core", situation="own tenant")

    def mistaken(*_: object) -> Answer:
        return Answer(sqlstate="42601", message="syntax error")

    monkeypatch.setattr(Attack, "_try", mistaken)
    assert attack.run(arena).verdict == "inconclusive"
