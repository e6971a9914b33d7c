"""The schema of Celery's own tables, which hold every tenant's messages and results."""

from collections.abc import Iterator, Sequence
from textwrap import dedent
from typing import Any, Final

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import DDL

from tenantry.alembic.operations import migration_tenancy
from tenantry.config import TenancyConfig
from tenantry.rls import quote_identifier, quote_literal

NAME: Final = "tenantry_broker"


@Operations.register_operation("create_broker_schema")
class CreateBrokerSchemaOp(MigrateOperation):
    """Creates the schema of the broker's and the results' tables, and the role that uses it."""

    def __init__(self, *, schema: str = NAME, role: str = NAME, logins: Sequence[str] = ()) -> None:
        """Take the names, and the logins that are to become members of the role."""
        self.schema = schema
        self.role = role
        self.logins = tuple(logins)

    @classmethod
    def create_broker_schema(
        cls,
        operations: Operations,
        *,
        schema: str = NAME,
        role: str = NAME,
        logins: Sequence[str] = (),
    ) -> Any:
        """Create the schema in which Celery keeps its tables when PostgreSQL is its broker.

        Its tables have no tenant column and hold everybody's messages, so only the role, and the
        logins that are members of it, get in; the application's role does not. The role is made
        where it is missing and owns nothing else. A login finds the tables if the schema is its
        search_path: `alter role … set search_path = tenantry_broker`, or `?options=-csearch_path%3D
        tenantry_broker` in its URL.

        Args:
            operations: supplied by Alembic.
            schema: its name.
            role: a role without login.
            logins: to become members of the role; they exist.
        """
        return operations.invoke(cls(schema=schema, role=role, logins=logins))

    def reverse(self) -> "DropBrokerSchemaOp":
        """Return the operation that undoes this one."""
        return DropBrokerSchemaOp(schema=self.schema)


@Operations.register_operation("drop_broker_schema")
class DropBrokerSchemaOp(MigrateOperation):
    """Drops the schema with the messages and results in it; the role stays."""

    def __init__(self, *, schema: str = NAME) -> None:
        """Take the schema's name."""
        self.schema = schema

    @classmethod
    def drop_broker_schema(cls, operations: Operations, *, schema: str = NAME) -> Any:
        """Drop the schema, and with it every message and result; the role belongs to the server."""
        return operations.invoke(cls(schema=schema))

    def reverse(self) -> CreateBrokerSchemaOp:
        """Return the operation that undoes this one."""
        return CreateBrokerSchemaOp(schema=self.schema)


@Operations.implementation_for(CreateBrokerSchemaOp)
def _create_broker_schema(operations: Operations, operation: CreateBrokerSchemaOp) -> None:
    for statement in _creation(operation, migration_tenancy(operations)):
        operations.execute(statement)


@Operations.implementation_for(DropBrokerSchemaOp)
def _drop_broker_schema(operations: Operations, operation: DropBrokerSchemaOp) -> None:
    operations.execute(_ddl(f"drop schema if exists {quote_identifier(operation.schema)} cascade"))


def _creation(operation: CreateBrokerSchemaOp, config: TenancyConfig) -> Iterator[DDL]:
    schema, role = quote_identifier(operation.schema), quote_identifier(operation.role)
    owner, app = quote_identifier(config.owner_role), quote_identifier(config.app_role)
    # Another database of the server may be migrated at this moment: its role will do. Whoever uses
    # another broker can do without all this, so a missing privilege is no error.
    yield _ddl(f"""
        do $tenantry$
        begin
          if not exists (select from pg_catalog.pg_roles
                         where rolname = {quote_literal(operation.role)}) then
            begin
              create role {role} nologin;
            exception when duplicate_object or unique_violation then
              null;
            end;
          end if;
          if not exists (select from pg_catalog.pg_namespace
                         where nspname = {quote_literal(operation.schema)}) then
            create schema {schema} authorization {owner};
          end if;
          revoke all on schema {schema} from public, {app};
          grant usage, create on schema {schema} to {role};
        exception when insufficient_privilege then
          raise warning 'PostgreSQL is no broker yet, as % may not make the role and schema %: '
            'a DBA can do it with psql -f "$(tenantry sql roles)"',
            current_user, {quote_literal(operation.role)};
        end
        $tenantry$
    """)  # noqa: S608 - DDL, of which nothing can be a parameter
    for login in operation.logins:
        yield _ddl(f"grant {role} to {quote_identifier(login)}")


def _ddl(sql: str) -> DDL:
    """Return the statement as it stands: DDL() looks for percent signs, but not for parameters."""
    return DDL(dedent(sql).strip().replace("%", "%%"))  # type: ignore[no-untyped-call]
