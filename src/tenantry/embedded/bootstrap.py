"""What a superuser does once for a new server: logins, databases, and what PUBLIC loses."""

from collections.abc import Mapping
from contextlib import closing
from importlib.resources import files
from typing import Final, Literal

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import encrypt_password

from tenantry.embedded.postmaster import HOST
from tenantry.exceptions import EmbeddedServerError

Login = Literal["app", "owner", "maintenance", "courier", "superuser"]

DATABASE: Final = "tenantry"
ROLES: Final[Mapping[Login, str]] = {
    "app": "tenantry_login",
    "owner": "tenantry_migrator",
    "maintenance": "tenantry_maintainer",
    "courier": "tenantry_courier",
    "superuser": "postgres",
}


def connect(port: int, password: str, database: str) -> Connection:
    """Return a connection of the superuser in autocommit, as CREATE DATABASE demands.

    Raises:
        EmbeddedServerError: the server answers, but does not let the recorded superuser in.
    """
    try:
        connection = psycopg2.connect(
            host=HOST,
            port=port,
            user=ROLES["superuser"],
            password=password,
            dbname=database,
            connect_timeout=10,
            sslmode="disable",
            application_name="tenantry embedded",
        )
    except psycopg2.OperationalError as error:
        raise EmbeddedServerError(
            f"the embedded server on port {port} refuses its superuser: {str(error).strip()}. "
            "`tenantry db reset` begins anew with no data"
        ) from error
    connection.autocommit = True
    return connection


def prepare(port: int, passwords: Mapping[str, str]) -> None:
    """Create the logins and the database `tenantry`, leaving both as they should be if they exist.

    The passwords reach the server as SCRAM verifiers, so that its log cannot hold them.
    """
    superuser = passwords["superuser"]
    with closing(connect(port, superuser, "postgres")) as connection:
        with connection.cursor() as cursor:
            cursor.execute(_script("roles.sql"))
            for login, role in ROLES.items():
                verifier = encrypt_password(passwords[login], role, connection, "scram-sha-256")
                cursor.execute(
                    sql.SQL("alter role {} password {}").format(
                        sql.Identifier(role), sql.Literal(verifier)
                    )
                )
        for database in ("postgres", "template1"):
            _close_to_public(connection, database)
    with (
        closing(connect(port, superuser, "template1")) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(_script("restrictions.sql"))
    with closing(connect(port, superuser, "postgres")) as connection:
        with connection.cursor() as cursor:
            cursor.execute("select from pg_catalog.pg_database where datname = %s", [DATABASE])
            known = cursor.fetchone() is not None
        if not known:
            _create(connection, DATABASE, "template1")
        _admit_logins(connection, DATABASE)
    with closing(connect(port, superuser, DATABASE)) as connection, connection.cursor() as cursor:
        cursor.execute(_script("restrictions.sql"))


def create_database(port: int, password: str, name: str, template: str | None) -> None:
    """Create a database of the migrator's that only the server's own logins may enter.

    With a template its `ALTER DATABASE … SET` values are taken over too, which PostgreSQL's own
    copy leaves behind.

    Raises:
        EmbeddedServerError: the name is taken, or the template is unknown or in use.
    """
    with closing(connect(port, password, "postgres")) as connection:
        _create(connection, name, template or "template1")
        _admit_logins(connection, name)
        if template is not None:
            _copy_settings(connection, template, name)


def drop_database(port: int, password: str, name: str) -> None:
    """Drop the database if it exists, ending the connections to it.

    Raises:
        EmbeddedServerError: the server refuses, as it does for its templates.
    """
    statement = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
    with closing(connect(port, password, "postgres")) as connection, connection.cursor() as cursor:
        try:
            cursor.execute(statement)
        except psycopg2.Error as error:
            raise EmbeddedServerError(
                f"database {name!r} could not be dropped: {_said(error)}"
            ) from error


def _create(connection: Connection, name: str, template: str) -> None:
    statement = sql.SQL("create database {} template {} owner {}").format(
        sql.Identifier(name), sql.Identifier(template), sql.Identifier(ROLES["owner"])
    )
    with connection.cursor() as cursor:
        try:
            cursor.execute(statement)
        except psycopg2.Error as error:
            raise EmbeddedServerError(
                f"database {name!r} could not be made from {template!r}: {_said(error)}. Choose "
                "another name, and close every connection to the template first"
            ) from error


def _admit_logins(connection: Connection, database: str) -> None:
    _close_to_public(connection, database)
    logins = sql.SQL(", ").join(
        sql.Identifier(role) for login, role in ROLES.items() if login != "superuser"
    )
    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("grant connect on database {} to {}").format(sql.Identifier(database), logins)
        )


def _close_to_public(connection: Connection, database: str) -> None:
    # What is revoked inside a database is no use while the same role can look from a sibling.
    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("revoke connect, temporary on database {} from public").format(
                sql.Identifier(database)
            )
        )


def _copy_settings(connection: Connection, source: str, target: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "select unnest(s.setconfig) from pg_catalog.pg_db_role_setting as s"
            " join pg_catalog.pg_database as d on d.oid = s.setdatabase"
            " where d.datname = %s and s.setrole = 0",
            [source],
        )
        for (setting,) in cursor.fetchall():
            name, _, value = setting.partition("=")
            cursor.execute(
                sql.SQL("alter database {} set {} = {}").format(
                    sql.Identifier(target),
                    sql.Identifier(*name.split(".")),
                    sql.Literal(value),
                )
            )


def _script(name: str) -> str:
    return files("tenantry.embedded").joinpath(name).read_text(encoding="utf-8")


def _said(error: psycopg2.Error) -> str:
    return error.diag.message_primary or str(error).strip()
