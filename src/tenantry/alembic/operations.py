"""Alembic operations that build and remove the wall; each renders plain SQL, offline as well."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alembic.operations import MigrateOperation, Operations

from tenantry.alembic import statements
from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.models import TenantTable
from tenantry.rls import TableIsolation, qualified_name, tenant_policies


@dataclass(frozen=True, slots=True)
class MigrationLogins:
    """The logins that `create_tenancy_roles` admits where a revision names none."""

    application: tuple[str, ...] = ()
    maintenance: tuple[str, ...] = ()


def migration_tenancy(operations: Operations) -> TenancyConfig:
    """Return the configuration that `context.configure(tenancy=…)` was given, or the default."""
    tenancy: TenancyConfig = operations.migration_context.opts.get("tenancy", DEFAULT_CONFIG)
    return tenancy


@Operations.register_operation("create_tenancy_roles")
class CreateTenancyRolesOp(MigrateOperation):
    """Creates the group roles where they are missing, and their rights in this database."""

    def __init__(
        self,
        logins: Sequence[str] | None = None,
        *,
        maintenance_logins: Sequence[str] | None = None,
        schemas: Sequence[str] = (),
    ) -> None:
        """Take the logins that are to become members, and further schemas of tenant tables."""
        self.logins = logins
        self.maintenance_logins = maintenance_logins
        self.schemas = tuple(schemas)

    @classmethod
    def create_tenancy_roles(
        cls,
        operations: Operations,
        logins: Sequence[str] | None = None,
        *,
        maintenance_logins: Sequence[str] | None = None,
        schemas: Sequence[str] = (),
    ) -> Any:
        """Create owner, application, authenticator and maintenance role where they are missing.

        The migrating role becomes a member of the owner, the owner of the authenticator; the
        version table passes to the owner; PUBLIC loses CREATE on the schemas, TEMPORARY on the
        database and EXECUTE on the owner's future functions. What the migrating role may not do is
        told as a warning that names the script for a DBA.

        Args:
            operations: supplied by Alembic.
            logins: of the application, made members of its role; None for the login of
                DATABASE_URL, where `run_migrations` runs this.
            maintenance_logins: made members of the maintenance role; None for the login of
                MAINTENANCE_DATABASE_URL, where `run_migrations` runs this and it is set.
            schemas: that hold tenant tables, beside the current one; they exist already.
        """
        return operations.invoke(
            cls(logins, maintenance_logins=maintenance_logins, schemas=schemas)
        )

    def reverse(self) -> "ReleaseTenancyRolesOp":
        """Return the operation that undoes this one."""
        return ReleaseTenancyRolesOp(schemas=self.schemas)


@Operations.register_operation("release_tenancy_roles")
class ReleaseTenancyRolesOp(MigrateOperation):
    """Takes the roles' rights in this database away; the roles stay."""

    def __init__(self, *, schemas: Sequence[str] = ()) -> None:
        """Take the further schemas that `create_tenancy_roles` was given."""
        self.schemas = tuple(schemas)

    @classmethod
    def release_tenancy_roles(cls, operations: Operations, *, schemas: Sequence[str] = ()) -> Any:
        """Give the version table back and take the group roles' rights in this database away.

        The roles belong to the whole server and may serve other databases, so they stay, and so do
        their members. What PUBLIC lost, CREATE on the schemas and TEMPORARY on the database, is
        not given back.

        Args:
            operations: supplied by Alembic.
            schemas: as they were given to `create_tenancy_roles`.
        """
        return operations.invoke(cls(schemas=schemas))

    def reverse(self) -> CreateTenancyRolesOp:
        """Return the operation that undoes this one."""
        return CreateTenancyRolesOp(schemas=self.schemas)


@Operations.register_operation("define_tenant_settings")
class DefineTenantSettingsOp(MigrateOperation):
    """Defines both settings, empty, for the database."""

    @classmethod
    def define_tenant_settings(cls, operations: Operations) -> Any:
        """Define the settings of organization and user for this database, with '' as their value.

        Needs the database's owner with SET on both parameters, or a superuser; otherwise a warning
        says so, and the layer defines the settings on each new connection.
        """
        return operations.invoke(cls())

    def reverse(self) -> "UndefineTenantSettingsOp":
        """Return the operation that undoes this one."""
        return UndefineTenantSettingsOp()


@Operations.register_operation("undefine_tenant_settings")
class UndefineTenantSettingsOp(MigrateOperation):
    """Removes the database's definition of both settings."""

    @classmethod
    def undefine_tenant_settings(cls, operations: Operations) -> Any:
        """Remove the definition of both settings from this database."""
        return operations.invoke(cls())

    def reverse(self) -> DefineTenantSettingsOp:
        """Return the operation that undoes this one."""
        return DefineTenantSettingsOp()


@Operations.register_operation("assume_role")
class AssumeRoleOp(MigrateOperation):
    """Runs what follows in this transaction as another role."""

    def __init__(self, role: str | None) -> None:
        """Take the role; None for the role that connected."""
        self.role = role

    @classmethod
    def assume_owner(cls, operations: Operations) -> Any:
        """Run the rest of this revision as the owner role, so that it owns what is created."""
        return operations.invoke(cls(migration_tenancy(operations).owner_role))

    @classmethod
    def assume_role(cls, operations: Operations, role: str | None) -> Any:
        """Run the rest of this revision as a role; None for the role that connected."""
        return operations.invoke(cls(role))


Operations.register_operation("assume_owner", "assume_owner")(AssumeRoleOp)


@Operations.register_operation("isolate_table")
class IsolateTableOp(MigrateOperation):
    """Walls a table off: row security enabled and forced, two policies, exact grants."""

    def __init__(
        self,
        table_name: str,
        *,
        column: str | None = None,
        reader_role: str | None = None,
        schema: str | None = None,
    ) -> None:
        """Take the table, its tenant column and the role that reads it before a tenant is known."""
        self.table_name = table_name
        self.column = column
        self.reader_role = reader_role
        self.schema = schema

    @classmethod
    def isolate_table(
        cls,
        operations: Operations,
        table_name: str,
        *,
        column: str | None = None,
        reader_role: str | None = None,
        schema: str | None = None,
    ) -> Any:
        """Enable and force row security, create the policy and the wall, grant the CRUD commands.

        The table passes to the owner role, if another one that migrates created it. PUBLIC holds
        nothing on the table afterwards, the application and the maintenance role hold SELECT,
        INSERT, UPDATE and DELETE; not TRUNCATE, REFERENCES or TRIGGER, which row security does not
        cover. Of the tenant column one most common value is kept as a statistic from the next
        ANALYZE on, so that a plan made for a new tenant suits the others too.

        Args:
            operations: supplied by Alembic.
            table_name: the table.
            column: its tenant column; None for the configured one.
            reader_role: a role that may SELECT from it before a tenant is known.
            schema: the table's schema; None for the current one.
        """
        return operations.invoke(
            cls(table_name, column=column, reader_role=reader_role, schema=schema)
        )

    def reverse(self) -> "ExposeTableOp":
        """Return the operation that undoes this one."""
        return ExposeTableOp(
            self.table_name, column=self.column, reader_role=self.reader_role, schema=self.schema
        )

    def to_diff_tuple(self) -> tuple[str | None, ...]:
        """Return what `alembic check` prints."""
        return ("isolate_table", self.schema, self.table_name)

    def to_isolation(self, config: TenancyConfig) -> TableIsolation:
        """Return the row security that the table gets."""
        declared = TenantTable(self.column or config.tenant_column, self.reader_role)
        return TableIsolation(
            table=self.table_name,
            schema=self.schema,
            enabled=True,
            forced=True,
            policies=tenant_policies(self.table_name, declared, config),
        )


@Operations.register_operation("expose_table")
class ExposeTableOp(IsolateTableOp):
    """Takes a table's wall down again, grants first."""

    @classmethod
    def expose_table(
        cls,
        operations: Operations,
        table_name: str,
        *,
        column: str | None = None,
        reader_role: str | None = None,
        schema: str | None = None,
    ) -> Any:
        """Revoke the grants of `isolate_table`, drop its policies, disable row security.

        The tenant column gets the server's default statistics.
        """
        return operations.invoke(
            cls(table_name, column=column, reader_role=reader_role, schema=schema)
        )

    def to_diff_tuple(self) -> tuple[str | None, ...]:
        """Return what `alembic check` prints."""
        return ("expose_table", self.schema, self.table_name)

    def reverse(self) -> IsolateTableOp:  # type: ignore[override]
        """Return the operation that undoes this one."""
        return IsolateTableOp(
            self.table_name, column=self.column, reader_role=self.reader_role, schema=self.schema
        )


@Operations.register_operation("create_maintenance_log")
class CreateMaintenanceLogOp(MigrateOperation):
    """Creates the append-only log of work across tenants."""

    @classmethod
    def create_maintenance_log(cls, operations: Operations) -> Any:
        """Create table `maintenance_log`, into which the maintenance role may only insert."""
        return operations.invoke(cls())

    def reverse(self) -> "DropMaintenanceLogOp":
        """Return the operation that undoes this one."""
        return DropMaintenanceLogOp()


@Operations.register_operation("drop_maintenance_log")
class DropMaintenanceLogOp(MigrateOperation):
    """Drops the log of work across tenants."""

    @classmethod
    def drop_maintenance_log(cls, operations: Operations) -> Any:
        """Drop table `maintenance_log`."""
        return operations.invoke(cls())

    def reverse(self) -> CreateMaintenanceLogOp:
        """Return the operation that undoes this one."""
        return CreateMaintenanceLogOp()


@Operations.implementation_for(CreateTenancyRolesOp)
def _create_tenancy_roles(operations: Operations, operation: CreateTenancyRolesOp) -> None:
    known: MigrationLogins = operations.migration_context.opts.get("logins", MigrationLogins())
    for statement in statements.create_roles(
        migration_tenancy(operations),
        logins=known.application if operation.logins is None else operation.logins,
        maintenance_logins=(
            known.maintenance
            if operation.maintenance_logins is None
            else operation.maintenance_logins
        ),
        schemas=operation.schemas,
        version_table=_version_table(operations),
    ):
        operations.execute(statement)


@Operations.implementation_for(ReleaseTenancyRolesOp)
def _release_tenancy_roles(operations: Operations, operation: ReleaseTenancyRolesOp) -> None:
    for statement in statements.release_roles(
        migration_tenancy(operations),
        schemas=operation.schemas,
        version_table=_version_table(operations),
    ):
        operations.execute(statement)


def _version_table(operations: Operations) -> str:
    context = operations.migration_context
    return qualified_name(context.version_table, context.version_table_schema)


@Operations.implementation_for(DefineTenantSettingsOp)
def _define_tenant_settings(operations: Operations, _operation: DefineTenantSettingsOp) -> None:
    operations.execute(statements.define_settings(migration_tenancy(operations)))


@Operations.implementation_for(UndefineTenantSettingsOp)
def _undefine_tenant_settings(operations: Operations, _operation: UndefineTenantSettingsOp) -> None:
    operations.execute(statements.undefine_settings(migration_tenancy(operations)))


@Operations.implementation_for(AssumeRoleOp)
def _assume_role(operations: Operations, operation: AssumeRoleOp) -> None:
    operations.execute(statements.assume_role(operation.role))


@Operations.implementation_for(IsolateTableOp)
def _isolate_table(operations: Operations, operation: IsolateTableOp) -> None:
    config = migration_tenancy(operations)
    column = operation.column or config.tenant_column
    isolation = operation.to_isolation(config)
    for statement in statements.isolate_table(isolation, column, config):
        operations.execute(statement)


@Operations.implementation_for(ExposeTableOp)
def _expose_table(operations: Operations, operation: ExposeTableOp) -> None:
    config = migration_tenancy(operations)
    column = operation.column or config.tenant_column
    isolation = operation.to_isolation(config)
    for statement in statements.expose_table(isolation, column, config):
        operations.execute(statement)


@Operations.implementation_for(CreateMaintenanceLogOp)
def _create_maintenance_log(operations: Operations, _operation: CreateMaintenanceLogOp) -> None:
    for statement in statements.create_maintenance_log(migration_tenancy(operations)):
        operations.execute(statement)


@Operations.implementation_for(DropMaintenanceLogOp)
def _drop_maintenance_log(operations: Operations, _operation: DropMaintenanceLogOp) -> None:
    operations.execute(statements.drop_maintenance_log())
