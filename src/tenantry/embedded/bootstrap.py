"""What a superuser does once for a new server: logins, databases, and what PUBLIC loses."""

from collections.abc import Mapping
from contextlib import closing
from typing import Final, Literal

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from tenantry.embedded import provisioning
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
    """Create the logins and the database `tenantry`; those that exist become as they should be."""
    superuser = passwords["superuser"]
    with closing(connect(port, superuser, "postgres")) as connection, connection.cursor() as cursor:
        provisioning.create_roles(cursor)
        for login, role in ROLES.items():
            provisioning.set_password(cursor, role, passwords[login])
        for database in ("postgres", "template1"):
            provisioning.close_to_public(cursor, database)
    _restrict(port, superuser, "template1")
    with closing(connect(port, superuser, "postgres")) as connection, connection.cursor() as cursor:
        cursor.execute("select from pg_catalog.pg_database where datname = %s", [DATABASE])
        if cursor.fetchone() is None:
            _create(cursor, DATABASE, "template1")
        _admit_logins(cursor, DATABASE)
    _restrict(port, superuser, DATABASE)


def create_database(port: int, password: str, name: str, template: str | None) -> None:
    """Create a database of the migrator's that only the server's own logins may enter.

    With a template its `ALTER DATABASE … SET` values are taken over too, which PostgreSQL's own
    copy leaves behind.

    Raises:
        EmbeddedServerError: the name is taken, or the template is unknown or in use.
    """
    with closing(connect(port, password, "postgres")) as connection, connection.cursor() as cursor:
        _create(cursor, name, template or "template1")
        _admit_logins(cursor, name)
        if template is not None:
            provisioning.copy_settings(cursor, template, name)


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


def _create(cursor: Cursor, name: str, template: str) -> None:
    statement = sql.SQL("create database {} template {} owner {}").format(
        sql.Identifier(name), sql.Identifier(template), sql.Identifier(ROLES["owner"])
    )
    try:
        cursor.execute(statement)
    except psycopg2.Error as error:
        raise EmbeddedServerError(
            f"database {name!r} could not be made from {template!r}: {_said(error)}. Choose "
            "another name, and close every connection to the template first"
        ) from error


def _admit_logins(cursor: Cursor, database: str) -> None:
    provisioning.close_to_public(cursor, database)
    logins = [role for login, role in ROLES.items() if login != "superuser"]
    provisioning.admit(cursor, database, logins)


def _restrict(port: int, password: str, database: str) -> None:
    with closing(connect(port, password, database)) as connection, connection.cursor() as cursor:
        provisioning.restrict(cursor)


def _said(error: psycopg2.Error) -> str:
    return error.diag.message_primary or str(error).strip()
