"""Tables to ask: each twice, walled off by the project's own operations, and without row security.

Both have the same rows in the same order, the same keys and the same indexes, and the application
holds the same rights on both. A ground's tenants have a thousand rows each, whatever its size; in a
skewed one a further tenant has as many as all of them together, one has ten, and one has none.
Rows of a tenant lie far from each other, as rows do that came in over time.
"""

import hashlib
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import psycopg2
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

import tenantry.alembic  # noqa: F401 - registers the operations
from tenantry.config import DEFAULT_CONFIG, libpq_url
from tenantry.models import current_tenant
from tenantry.testing import Database

TENANT_ROWS: Final = 1000
FOLDER_ROWS: Final = 50
SMALL_ROWS: Final = 10
LARGEST: Final = "largest"
SMALL: Final = "small"
ABSENT: Final = "absent"

SETTING: Final = DEFAULT_CONFIG.organization_setting

_ENDED_WITHIN: Final = 60.0  # seconds
# Nothing but its own statements shall work on a table while it is measured.
_QUIET: Final = "with (autovacuum_enabled = off)"
TABLES: Final = {
    "folders": """
create table {schema}.folders (
  organization_id uuid not null {default}, id uuid not null default gen_random_uuid(),
  name text not null)
""",
    "items": """
create table {schema}.items (
  organization_id uuid not null {default}, id uuid not null default gen_random_uuid(),
  folder_id uuid not null, name text not null, note text not null default '',
  created_at timestamptz not null default now())
""",
}
_KEYS: Final = (
    "alter table {schema}.folders add primary key (organization_id, id)",
    "alter table {schema}.items add primary key (organization_id, id)",
    "create index items_page on {schema}.items (organization_id, created_at, id)",
    "create index items_folder on {schema}.items (organization_id, folder_id)",
)
_FILL: Final = """
insert into {schema}.items (organization_id, id, folder_id, name, note, created_at)
select md5('tenant ' || tenant)::uuid, md5('item ' || n)::uuid,
  md5('folder ' || tenant || ' ' || place / {folder_rows})::uuid, 'item ' || n,
  repeat(md5(n::text), 2), timestamptz '2026-01-01' + n * interval '1 second'
from (select n, {tenant} as tenant, {place} as place from generate_series(1, {rows}) as n) as made
"""

EXPRESSIONS: Final = {
    "as it is": f"organization_id = {current_tenant()}",
    "sub-select": f"organization_id = (select {current_tenant()})",
    "SQL function": "organization_id = public.tenant_in_sql()",
    "PL/pgSQL function": "organization_id = public.tenant_in_plpgsql()",
    "column as text": (f"organization_id::text = nullif(current_setting('{SETTING}', true), '')"),
}
_FUNCTIONS: Final = (
    "create function public.tenant_in_sql() returns uuid stable parallel safe language sql "
    f"as $$ select {current_tenant()} $$",
    "create function public.tenant_in_plpgsql() returns uuid stable parallel safe "
    f"language plpgsql as $$ begin return {current_tenant()}; end $$",
)

# All but a few: pages that were added for rows and never had any are not marked.
_SEEN: Final = """
select sum(relallvisible) >= 0.95 * sum(relpages) from pg_class where relkind = 'r' and oid in
(select %(name)s::regclass union select relid from pg_partition_tree(%(name)s))
"""


@dataclass(frozen=True, slots=True)
class Ground:
    """Two schemas with the same tables: `name`, which is walled off, and `name`_plain.

    Attributes:
        name: of the walled schema.
        rows: of each of its two tables of items.
        skewed: half of the rows are one tenant's.
        partitions: by hash of the tenant; none where 0.
    """

    name: str
    rows: int
    skewed: bool = False
    partitions: int = 0

    @property
    def plain(self) -> str:
        """Return the name of the schema without row security."""
        return f"{self.name}_plain"

    @property
    def tenants(self) -> int:
        """Return how many tenants have a thousand rows."""
        return max(self.rows // (2 if self.skewed else 1) // TENANT_ROWS, 1)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant, and rows of its own to ask for."""

    id: str
    rows: tuple[tuple[str, str], ...]


def tenant_id(tenant: int | str) -> str:
    """Return the id of a tenant of any ground, which is known by a number or a word."""
    digest = hashlib.md5(f"tenant {tenant}".encode(), usedforsecurity=False)
    return str(uuid.UUID(digest.hexdigest()))


def choose_grounds(small: int, middle: int, large: int) -> dict[str, list[Ground]]:
    """Return what to ask, of sizes that are given as powers of ten."""
    return {
        "sizes": [Ground(f"rows_{each}", 10**each) for each in range(4, large + 1)],
        "many": [Ground("many", 10**middle, skewed=True)],
        "few": [Ground("few", 40_000, skewed=True)],
        "tried": [Ground(f"tried_{number}", 10**small) for number in range(len(EXPRESSIONS))],
        "apart": [Ground("apart", 2 * 10**small, skewed=True)],
        "partitions": [
            Ground(f"partitions_{each}", 2 * 10**small, partitions=each) for each in (16, 64)
        ],
    }


def lay(database: Database, *grounds: Ground) -> None:
    """Create the grounds in an empty database, with all their rows."""
    schemas = [schema for ground in grounds for schema in (ground.name, ground.plain)]
    with superuser(database) as cursor:
        for schema in schemas:
            cursor.execute(f"create schema {schema} authorization {database.owner_url.username}")
    engine = create_engine(database.owner_url, poolclass=NullPool)
    with engine.begin() as connection:
        op: Any = Operations(MigrationContext.configure(connection))
        op.execute("create table alembic_version (version_num varchar(32) primary key)")
        op.create_tenancy_roles([str(database.app_url.username)], schemas=schemas)
        op.assume_owner()
        for ground in grounds:
            _create(op, ground)
    with superuser(database) as cursor:
        for function in _FUNCTIONS:
            cursor.execute(function)
        for ground in grounds:
            _fill(cursor, ground)


def _create(op: Any, ground: Ground) -> None:
    kind = "partition by hash (organization_id)" if ground.partitions else _QUIET
    for schema, table in product((ground.name, ground.plain), TABLES):
        walled = schema == ground.name
        default = f"default {current_tenant()}" if walled else ""
        op.execute(TABLES[table].format(schema=schema, default=default) + kind)
        for number in range(ground.partitions):
            op.execute(
                f"create table {schema}.{table}_{number} partition of {schema}.{table} "
                f"for values with (modulus {ground.partitions}, remainder {number}) {_QUIET}"
            )
        if walled:
            op.isolate_table(table, schema=schema)
        else:
            role = DEFAULT_CONFIG.app_role
            op.execute(f"grant select, insert, update, delete on {schema}.{table} to {role}")


def _fill(cursor: Cursor, ground: Ground) -> None:
    tenant, place = f"(n % {ground.tenants})::text", f"n / {ground.tenants}"
    if ground.skewed:
        tenant = (
            f"case when n <= {SMALL_ROWS} then '{SMALL}' when n % 2 = 0 then '{LARGEST}' "
            f"else (n / 2 % {ground.tenants})::text end"
        )
        place = f"case when n % 2 = 0 then n / 2 else n / 2 / {ground.tenants} end"
    made = {"tenant": tenant, "place": place, "folder_rows": FOLDER_ROWS, "rows": ground.rows}
    cursor.execute(_FILL.format(schema=ground.plain, **made))
    cursor.execute(
        f"insert into {ground.plain}.folders select distinct organization_id, folder_id, 'folder' "
        f"from {ground.plain}.items"
    )
    for table in TABLES:
        cursor.execute(f"insert into {ground.name}.{table} select * from {ground.plain}.{table}")
    for schema in (ground.plain, ground.name):
        for statement in _KEYS:
            cursor.execute(statement.format(schema=schema))
    vacuum(cursor, ground)


def vacuum(cursor: Cursor, ground: Ground) -> None:
    """Remove what writes have left behind, and count what is there.

    Raises:
        RuntimeError: a transaction has kept pages from being marked as seen by all for a minute.
    """
    # What has an older snapshot keeps a page from that mark, without which the planner takes no
    # index alone. The server itself takes some: ANALYZE of a catalog, and each session as it
    # begins, before pg_stat_activity says which database it is for. So the mark itself is awaited.
    for name in (f"{schema}.{table}" for schema in (ground.plain, ground.name) for table in TABLES):
        deadline = time.monotonic() + _ENDED_WITHIN
        while True:
            cursor.execute(f"vacuum (analyze, freeze) {name}")
            cursor.execute(_SEEN, {"name": name})
            if cursor.fetchone() == (True,):
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"a transaction keeps {name} from being vacuumed: end it")
            time.sleep(0.1)


def sample(cursor: Cursor, ground: Ground, tenant: int | str, most: int = 1000) -> Tenant:
    """Return a tenant with ids of its items and their folders; made up, where it has none."""
    cursor.execute(
        f"select id, folder_id from {ground.plain}.items where organization_id = %s "
        "order by created_at limit %s",
        (tenant_id(tenant), most),
    )
    rows = [(str(item), str(folder)) for item, folder in cursor.fetchall()]
    return Tenant(tenant_id(tenant), tuple(rows) or ((str(uuid.uuid4()), str(uuid.uuid4())),))


def change_rule(cursor: Cursor, ground: Ground, rule: str) -> None:
    """Give both policies of each table another expression."""
    for table in TABLES:
        for policy in (f"{table}_tenant", f"{table}_tenant_wall"):
            cursor.execute(
                f"alter policy {policy} on {ground.name}.{table} using ({rule}) with check ({rule})"
            )


def change_statistics(cursor: Cursor, ground: Ground, target: int) -> None:
    """Keep statistics of that many tenants by name; -1 for the server's default, a hundred."""
    for table in TABLES:
        name = f"{ground.name}.{table}"
        cursor.execute(f"alter table {name} alter organization_id set statistics {target}")
        cursor.execute(f"analyze {name}")


def take_index_apart(cursor: Cursor, ground: Ground) -> None:
    """Leave the order of pages to an index without the tenant."""
    cursor.execute(f"drop index if exists {ground.name}.items_page")
    cursor.execute(f"create index if not exists items_moment on {ground.name}.items (created_at)")


@contextmanager
def superuser(database: Database) -> Iterator[Cursor]:
    """Yield a cursor that commits each statement."""
    with closing(psycopg2.connect(libpq_url(database.superuser_url))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
