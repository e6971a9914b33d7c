"""Tenant tables, attacked with every command by psycopg 3 and asyncpg in every situation."""

import uuid

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from tests.fixtures.drivers import engine_of
from tests.fixtures.worlds import DRIVER_WALLS, Wall

from assay.models import Base
from tenantry import DEFAULT_CONFIG, protect_engine
from tenantry.testing.attacks_arena import Arena
from tenantry.testing.attacks_observer import Observer
from tenantry.testing.attacks_seeds import seed_tenant
from tenantry.testing.attacks_surfaces import Surface, bind_plainly
from tenantry.testing.matrix import SITUATIONS, attacks, run_matrix

# The whole matrix is test_matrix.py's; here the root, and tables that refer and are referred to.
TABLES = ("organizations", "test_sets", "test_set_tests")
SURFACES: tuple[Surface, ...] = ("orm", "core", "text")


@pytest.fixture(params=DRIVER_WALLS, ids=str)
def wall(request: pytest.FixtureRequest) -> Wall:
    """Return each driver in turn."""
    wall: Wall = request.param
    return wall


def test_no_attack_on_another_tenant_gets_through(app_url: URL, wall: Wall) -> None:
    """Every command in every situation is stopped, and the victim's rows stay byte for byte."""
    attacker, victim = uuid.uuid4(), uuid.uuid4()
    engine = protect_engine(
        engine_of(wall.driver, app_url, pool_size=1, max_overflow=0), metadata=Base.metadata
    )
    watching = create_engine(app_url)
    for tenant in (attacker, victim):
        with watching.begin() as connection:
            bind_plainly(DEFAULT_CONFIG)(connection, tenant)
            seed_tenant(connection, Base.metadata, tenant)
    watching.dispose()
    observer = Observer(watching, Base.metadata)
    # The text's parameters are strings, which asyncpg takes for none of another type.
    surfaces = SURFACES[:2] if wall.driver == "asyncpg" else SURFACES
    with Arena(engine, observer, attacker=attacker, victim=victim) as arena:
        outcomes = run_matrix(arena, attacks(arena, tables=TABLES, surfaces=surfaces))
        assert [str(outcome) for outcome in outcomes if not outcome.stopped] == []
        assert arena.changed_tables() == []
        assert {outcome.attack.situation for outcome in outcomes} == set(SITUATIONS)
        for surface in surfaces:
            for target in map(arena.target, TABLES):
                with arena.position(surface, "reused connection") as hand:
                    owners = hand.execute(hand.relation(target).owners()).owners
                    hand.rollback()
                assert owners == (str(attacker),) * target.own_count
    watching.dispose()
