"""What a superuser does on any server: roles and passwords, and what a database admits."""

from importlib.resources import files

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extensions import encrypt_password


def create_roles(cursor: Cursor) -> None:
    """Create the roles and logins that Tenantry's servers have, those that exist included."""
    cursor.execute(_script("roles.sql"))


def set_password(cursor: Cursor, role: str, password: str) -> None:
    """Let the role log in with the password, which the server's log cannot hold.

    The server is sent its SCRAM verifier instead.
    """
    verifier = encrypt_password(password, role, cursor.connection, "scram-sha-256")
    cursor.execute(
        sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(verifier))
    )


def close_to_public(cursor: Cursor, database: str) -> None:
    """Leave PUBLIC no privilege on the database.

    What is revoked inside a database is no use while a role can look from a sibling.
    """
    cursor.execute(
        sql.SQL("revoke all on database {} from public").format(sql.Identifier(database))
    )


def admit(cursor: Cursor, database: str, roles: list[str]) -> None:
    """Let the roles connect to the database."""
    cursor.execute(
        sql.SQL("grant connect on database {} to {}").format(
            sql.Identifier(database), sql.SQL(", ").join(map(sql.Identifier, roles))
        )
    )


def copy_settings(cursor: Cursor, source: str, target: str) -> None:
    """Store for the target each value that ALTER DATABASE or ALTER ROLE stored for the source."""
    cursor.execute(
        "select r.rolname, pg_catalog.unnest(s.setconfig)"
        " from pg_catalog.pg_db_role_setting s"
        " join pg_catalog.pg_database d on d.oid = s.setdatabase"
        " left join pg_catalog.pg_roles r on r.oid = s.setrole"
        " where d.datname = %s",
        [source],
    )
    for role, setting in cursor.fetchall():
        name, _, value = setting.partition("=")
        target_of = (
            sql.SQL("role {} in database {}").format(sql.Identifier(role), sql.Identifier(target))
            if role
            else sql.SQL("database {}").format(sql.Identifier(target))
        )
        cursor.execute(
            sql.SQL("alter {} set {} = {}").format(
                target_of, sql.Identifier(*name.split(".")), sql.Literal(value)
            )
        )


def restrict(cursor: Cursor) -> None:
    """Take from PUBLIC, in the superuser's current database, what looks into other sessions."""
    cursor.execute(_script("restrictions.sql"))


def _script(name: str) -> str:
    return files("tenantry.embedded").joinpath(name).read_text(encoding="utf-8")
