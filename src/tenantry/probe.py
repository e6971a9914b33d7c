"""The probe: does this connection's server keep tenants apart, and how is it reached."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Protocol

from sqlalchemy import MetaData

from tenantry.config import TenancyConfig
from tenantry.models import tenant_column
from tenantry.rls import printed_rule

_PROBE: Final = files("tenantry").joinpath("probe.sql").read_text()

# pg_get_expr() leaves out the schema of what the search_path finds first: with nothing but the
# catalog on it, a planted function or operator shows its schema and does not pass for the rule.
_SETTINGS: Final = (
    "set local search_path = pg_catalog, pg_temp",
    "set local quote_all_identifiers = off",
)

# What is not PostgreSQL itself numbers its versions otherwise.
_POSTGRESQL: Final = re.compile(r"(\d+)(\.\d+|devel|(beta|rc)\d+)( \(.*\))?")

Execute = Callable[[Any, tuple[str, ...], Mapping[str, str]], None]
"""Executes commands one after the other on a cursor; parameters, as psycopg2 has them, are of the
last."""


def in_one_message(cursor: Any, commands: tuple[str, ...], parameters: Mapping[str, str]) -> None:
    """Execute the commands as psycopg2 can: one round trip."""
    cursor.execute(";\n".join(commands), parameters)


class DriverConnection(Protocol):
    """The part of a connection that the probe uses, under psycopg2's names."""

    autocommit: bool

    def cursor(self) -> Any:
        """Open a cursor."""

    def rollback(self) -> None:
        """End the transaction."""

    def get_backend_pid(self) -> int:
        """Return the backend's process id, as the start-up handshake told it."""

    def get_dsn_parameters(self) -> dict[str, str]:
        """Return how the connection was made."""


@dataclass(frozen=True, slots=True)
class OpenRelation:
    """A table or view through which this role could reach rows of other tenants, and why."""

    name: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What the probe found on one connection: whether the database is a wall for this role.

    Attributes:
        database: name of the database.
        role: the role whose rights apply (`current_user`).
        server_version: as `server_version` prints it.
        settings_defined: both settings existed before the layer wrote them.
        stored_default: one of them came with a value other than '' from the role's, the
            database's or the server's configuration.
        pooled: a pooler stands between, so that backends change from transaction to transaction.
        citus: the Citus extension is installed.
        role_reasons: why the role itself would be let past row security; empty if it is not.
        open_relations: tables and views that are not walled off for this role.
        tenant_tables: schema, name and tenant column of each tenant table, and of each view that
            has the column and shows one.
        missing_tables: tenant tables of the models that do not exist, or lack the column.
        reachable_tables: number of tenant tables on which the role holds any privilege.
        shared_tables: schema and name of each other table of the database.
        own_code: names of the functions and operators that come neither with the server nor with
            an extension.
        steady_functions: names of functions that promise to change nothing (STABLE or IMMUTABLE),
            whichever of that name is called; the role could not have written them.
    """

    database: str
    role: str
    server_version: str
    settings_defined: bool
    stored_default: bool
    pooled: bool
    citus: bool
    role_reasons: tuple[str, ...]
    open_relations: tuple[OpenRelation, ...]
    tenant_tables: tuple[tuple[str, str, str], ...]
    missing_tables: tuple[str, ...]
    reachable_tables: int
    shared_tables: tuple[tuple[str, str], ...]
    own_code: tuple[str, ...]
    steady_functions: frozenset[str]

    @property
    def postgresql(self) -> int | None:
        """The major version; None for Citus, and for what only speaks PostgreSQL's protocol."""
        version = None if self.citus else _POSTGRESQL.fullmatch(self.server_version)
        return int(version[1]) if version else None

    @property
    def enforced(self) -> bool:
        """True if the database keeps this role inside one tenant in every tenant table."""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """Each reason why the wall is missing; empty where it stands."""
        reasons = list(self.role_reasons)
        if not self.tenant_tables:
            reasons.append("the database has no tenant table; run `alembic upgrade head`")
        elif self.reachable_tables == 0:
            reasons.append(f"role {self.role!r} holds no privilege on any tenant table")
        relations: dict[tuple[str, ...], list[str]] = {}
        for relation in self.open_relations:
            relations.setdefault(relation.reasons, []).append(relation.name)
        reasons += [f"{', '.join(names)}: {', '.join(why)}" for why, names in relations.items()]
        return tuple(reasons)


def probe(
    connection: DriverConnection,
    config: TenancyConfig,
    metadata: MetaData | None = None,
    *,
    execute: Execute = in_one_message,
) -> Isolation:
    """Return what the server says of this connection.

    The connection must be outside a transaction: a new one is. Reads the catalog and two settings
    in a transaction that is rolled back. A pooler is recognised by a backend that is not the one
    of the start-up handshake.

    Args:
        connection: of psycopg2, or one that looks like it.
        config: what the database calls its tenants.
        metadata: of the models; the tenant tables that it declares are looked for by name.
        execute: executes commands on its cursors.

    Source: PostgreSQL manual, 5.9 Row Security Policies, 9.28.1 (`current_setting` with
    missing_ok in place of SHOW, which fails for an undefined setting).
    """
    rule = printed_rule("{column}", config)
    before, _, after = rule.partition(" = ")
    parameters = {
        "tenant_column": config.tenant_column,
        "root_table": config.root_table,
        "declared": json.dumps(list(_declared(config, metadata))),
        "rule": rule,
        "wrapped_rule": f'{before} = ( SELECT {after[:-1]} AS "nullif"))',
        "authenticator": config.authenticator_role,
        "organization_setting": config.organization_setting,
        "user_setting": config.user_setting,
        "login": connection.get_dsn_parameters().get("user", ""),
    }
    autocommit = connection.autocommit
    connection.autocommit = False
    try:
        with connection.cursor() as cursor:
            execute(cursor, (*_SETTINGS, _PROBE), parameters)
            names = [column[0] for column in cursor.description]
            found = dict(zip(names, cursor.fetchone(), strict=True))
    finally:
        connection.rollback()
        connection.autocommit = autocommit
    return Isolation(
        database=found["database"],
        role=found["role"],
        server_version=found["server_version"],
        settings_defined=None not in (found["organization"], found["user"]),
        stored_default=bool(found["organization"] or found["user"]),
        pooled=found["pid"] != connection.get_backend_pid(),
        citus=found["citus"],
        role_reasons=tuple(found["role_reasons"]),
        open_relations=tuple(
            OpenRelation(name, tuple(reasons)) for name, reasons in found["open_relations"] or ()
        ),
        tenant_tables=tuple(tuple(row) for row in found["tenant_tables"] or ()),
        missing_tables=tuple(found["missing_tables"]),
        reachable_tables=found["reachable_tables"],
        shared_tables=tuple(tuple(row) for row in found["shared_tables"] or ()),
        own_code=tuple(found["own_code"] or ()),
        steady_functions=frozenset(found["steady_functions"] or ()),
    )


def _declared(config: TenancyConfig, metadata: MetaData | None) -> Iterable[dict[str, str | None]]:
    for table in () if metadata is None else metadata.sorted_tables:
        column = tenant_column(table, config)
        if column is not None:
            yield {
                "schema_name": table.schema,
                "table_name": table.name,
                "column_name": column.name,
            }
