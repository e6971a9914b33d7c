"""Row security read back from the catalog, and the probe's question to it."""

from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, text

from tenantry.config import TenancyConfig
from tenantry.rls.policies import Command, Policy, TableIsolation

_COMMANDS: Final[dict[str, Command]] = {
    "*": "all",
    "r": "select",
    "a": "insert",
    "w": "update",
    "d": "delete",
}

_TABLES = text("""
select c.relname, n.nspname, c.relrowsecurity, c.relforcerowsecurity
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p')
  and n.nspname = coalesce(cast(:schema as text), current_schema())
""")

_POLICIES = text("""
select c.relname, p.polname, p.polcmd::text, p.polpermissive,
  array(select coalesce(r.rolname, 'public')
        from unnest(p.polroles) with ordinality as o(oid, position)
        left join pg_catalog.pg_roles r on r.oid = o.oid
        order by o.position) as roles,
  pg_catalog.pg_get_expr(p.polqual, p.polrelid) as using_text,
  pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) as check_text
from pg_catalog.pg_policy p
join pg_catalog.pg_class c on c.oid = p.polrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = coalesce(cast(:schema as text), current_schema())
order by p.polname
""")


def read_isolation(connection: Connection, schema: str | None) -> dict[str, TableIsolation]:
    """Return the row security of each table of a schema (None: the current one), by table name.

    Expressions are in the form in which PostgreSQL prints them; compare with `as_printed`.
    """
    policies: dict[str, list[Policy]] = {}
    for row in connection.execute(_POLICIES, {"schema": schema}):
        policies.setdefault(row.relname, []).append(
            Policy(
                name=row.polname,
                using=row.using_text,
                check=row.check_text,
                command=_COMMANDS[row.polcmd],
                permissive=row.polpermissive,
                roles=tuple(row.roles),
            )
        )
    return {
        row.relname: TableIsolation(
            table=row.relname,
            schema=schema,
            enabled=row.relrowsecurity,
            forced=row.relforcerowsecurity,
            policies=tuple(policies.get(row.relname, ())),
        )
        for row in connection.execute(_TABLES, {"schema": schema})
    }


def as_printed(
    isolation: TableIsolation, quoted_column: str, config: TenancyConfig
) -> TableIsolation:
    """Return the isolation with its expressions as PostgreSQL 15 to 18 print them.

    Args:
        isolation: what `expected_isolation` returned.
        quoted_column: the tenant column as the server's `quote_ident` writes it.
        config: names the setting and the id type.
    """
    rule = printed_rule(quoted_column, config)

    def printed(expression: str | None) -> str | None:
        if expression is None or expression == "true":
            return expression
        _, exemption, role = expression.partition(" or current_user = ")
        return f"({rule} OR (CURRENT_USER = {role}))" if exemption else rule

    return replace(
        isolation,
        policies=tuple(
            replace(policy, using=printed(policy.using), check=printed(policy.check))
            for policy in sorted(isolation.policies, key=lambda policy: policy.name)
        ),
    )


def printed_rule(quoted_column: str, config: TenancyConfig) -> str:
    """Return the tenant rule as `pg_get_expr` prints it."""
    return (
        f"({quoted_column} = (NULLIF(current_setting('{config.organization_setting}'::text, true),"
        f" ''::text))::{config.id_type})"
    )
