"""One PostgreSQL server per home folder, started by whoever needs it first."""

import os
import secrets
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from sqlalchemy.engine import URL

from tenantry.embedded import bootstrap
from tenantry.embedded.account import Account
from tenantry.embedded.binaries import Binaries, copy_binaries, find_binaries
from tenantry.embedded.bootstrap import DATABASE, ROLES, Login
from tenantry.embedded.home import Home, Record
from tenantry.embedded.postmaster import (
    HOST,
    Postmaster,
    find_postmaster,
    launch,
    stop_postmaster,
)
from tenantry.exceptions import EmbeddedServerError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """What there is to know of a server without its passwords.

    `port` and `pid` are None while it is stopped, `data_folder` until its first start.
    """

    running: bool
    version: str
    host: str
    port: int | None
    pid: int | None
    data_folder: Path | None
    log_file: Path


class EmbeddedServer:
    """A private PostgreSQL that only this machine reaches, and nobody without a password.

    Args:
        home: folder of the server; by default $TENANTRY_HOME, else `.tenantry` in the working
            directory. It is made with mode 0700 and keeps git out of itself.
        durable: False lets the server forget its last commits when the machine itself crashes,
            in exchange for speed; meant for tests. A killed server loses nothing either way. It
            counts when the server is started, not while one runs.
    """

    def __init__(self, home: Path | None = None, *, durable: bool = True) -> None:
        chosen = home or Path(os.environ.get("TENANTRY_HOME", "").strip() or ".tenantry")
        self._home = Home(chosen)
        self._durable = durable

    @property
    def home(self) -> Path:
        """Return the absolute path of the home folder."""
        return self._home.folder

    @property
    def version(self) -> str:
        """Return the version of the binaries, such as '18.6'."""
        return self._binaries.version

    def psql(self) -> Path:
        """Return the path of the psql that belongs to the server's binaries.

        Raises:
            EmbeddedServerError: they come without one.
        """
        return self._binaries.psql

    def start(self) -> None:
        """Leave the server running and prepared, whether or not it was before.

        Processes that start it at once get one server. What a crash left behind is recovered, or
        made anew if it never came to hold data.

        Raises:
            EmbeddedServerError: it could not be started; the message has the end of its log.
        """
        serving = self._serving()
        if serving is not None and not _missing(serving[0]):
            return
        major = self._binaries.major
        self._home.create(Account.current())
        with self._home.locked():
            record = self._home.record(major)
            if record is None or not self._is_prepared(record):
                record = self._initialize(record)
            found = self._postmaster(record)
            if found is None or not found.ready:
                found = self._launch(record)
            missing = _missing(record)
            if not record.ready or record.port != found.port or missing:
                if not record.ready or missing:
                    record = replace(record, passwords=record.passwords | missing)
                    bootstrap.prepare(_port(found), record.passwords)
                self._home.remember(major, replace(record, ready=True, port=found.port))

    def stop(self) -> None:
        """Leave no server of this home running, of whichever major version.

        Raises:
            EmbeddedServerError: a server does not obey.
        """
        if not self._home.exists():
            return
        with self._home.locked():
            for major in self._home.majors():
                self._stop(major)

    def reset(self) -> None:
        """Stop the server and remove all its data, of every major version this home has had.

        Raises:
            EmbeddedServerError: it does not stop, or the data cannot be removed.
        """
        if not self._home.exists():
            return
        with self._home.locked():
            for major in self._home.majors():
                area = self._stop(major)
                if area is not None:
                    _remove(area)
                    self._home.leave(area)
                self._home.forget(major)

    def is_running(self) -> bool:
        """Tell whether the server is prepared and accepts connections."""
        return self._serving() is not None

    def status(self) -> ServerStatus:
        """Return the state of the server, which is not changed by asking."""
        major = self._binaries.major
        record = self._home.record(major)
        serving = self._serving()
        return ServerStatus(
            running=serving is not None,
            version=self.version,
            host=HOST,
            port=serving[1].port if serving else None,
            pid=serving[1].pid if serving else None,
            data_folder=self._data(record) if record else None,
            log_file=self._home.log_file(major),
        )

    def url(self, login: Login = "app", database: str = DATABASE) -> URL:
        """Return the URL of a login, password included, for SQLAlchemy with psycopg2.

        Raises:
            EmbeddedServerError: the server is not running.
        """
        port, passwords = self._access()
        return URL.create(
            "postgresql+psycopg2",
            username=ROLES[login],
            password=passwords[login],
            host=HOST,
            port=port,
            database=database,
        )

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database of the migrator's, as a copy of the template if one is named.

        The server's own logins may enter it, PUBLIC may not.

        Raises:
            EmbeddedServerError: the server is not running, the name is taken, or somebody is
                connected to the template.
        """
        port, passwords = self._access()
        bootstrap.create_database(port, passwords["superuser"], name, template)

    def secret(self, name: str) -> str:
        """Return a random text of 64 hexadecimal digits that belongs to this home.

        It is made when first asked for and kept in the home, readable for the home's owner alone.

        Raises:
            EmbeddedServerError: the home cannot be used.
        """
        self._home.create(Account.current())
        with self._home.locked():
            return self._home.secret(name)

    def drop_database(self, name: str) -> None:
        """Drop the database if it exists, ending the connections to it.

        Raises:
            EmbeddedServerError: the server is not running or refuses.
        """
        port, passwords = self._access()
        bootstrap.drop_database(port, passwords["superuser"], name)

    @cached_property
    def _binaries(self) -> Binaries:
        return find_binaries()

    def _data(self, record: Record) -> Path:
        return self._home.area(self._binaries.major, record) / "data"

    def _postmaster(self, record: Record) -> Postmaster | None:
        return find_postmaster(self._data(record))

    def _is_prepared(self, record: Record) -> bool:
        return record.ready and (self._data(record) / "PG_VERSION").exists()

    def _serving(self) -> tuple[Record, Postmaster] | None:
        record = self._home.record(self._binaries.major)
        if record is None or not record.ready:
            return None
        found = self._postmaster(record)
        return (record, found) if found and found.ready else None

    def _access(self) -> tuple[int, dict[str, str]]:
        serving = self._serving()
        if serving is None:
            raise EmbeddedServerError(
                f"the embedded server of {self.home} is not running: run `tenantry db start`"
            )
        record, found = serving
        return _port(found), record.passwords

    def _initialize(self, left_over: Record | None) -> Record:
        major = self._binaries.major
        account = Account.current()
        folder = self._home.choose_area(major, account)
        record = Record(
            folder=folder, passwords={login: secrets.token_urlsafe(24) for login in ROLES}
        )
        for unfinished in (left_over, record):
            if unfinished is not None:
                stop_postmaster(self._data(unfinished))
                _remove(self._home.area(major, unfinished))
        self._home.remember(major, record)
        area = self._home.area(major, record)
        area.mkdir(mode=0o700)
        account.own(area)
        programs = self._programs(account, area)
        _initdb(account, programs, area, record.passwords["superuser"], major, self._durable)
        return record

    def _launch(self, record: Record) -> Postmaster:
        major = self._binaries.major
        data = self._data(record)
        account = Account.owning(data)
        programs = self._programs(account, data.parent)
        log = self._home.open_log(major)
        try:
            return launch(
                account,
                programs,
                data,
                log=self._home.log_file(major),
                log_descriptor=log,
                port=record.port,
                durable=self._durable,
            )
        finally:
            os.close(log)

    def _programs(self, account: Account, area: Path) -> Path:
        folder = self._binaries.folder
        if not account.switches or account.can_execute(folder / "postgres"):
            return folder
        copied = copy_binaries(self._binaries, area / "postgresql")
        if not account.can_execute(copied / "postgres"):
            raise EmbeddedServerError(
                f"the user {account.name!r}, which runs the server because root must not, can run "
                f"PostgreSQL neither in {folder} nor from a copy: install PostgreSQL where every "
                "user can run it"
            )
        return copied

    def _stop(self, major: int) -> Path | None:
        record = self._home.record(major)
        if record is None:
            return None
        area = self._home.area(major, record)
        stop_postmaster(area / "data")
        return area


def _missing(record: Record) -> dict[str, str]:
    """Return passwords for logins that the server, made by an older version, does not have yet."""
    return {login: secrets.token_urlsafe(24) for login in ROLES if login not in record.passwords}


def default_server() -> EmbeddedServer:
    """Return the server of $TENANTRY_HOME, or of `.tenantry` in the working directory."""
    return EmbeddedServer()


def _initdb(
    account: Account, programs: Path, area: Path, password: str, major: int, durable: bool
) -> None:
    # The built-in provider knows C.UTF-8 on every machine; before 17 the C library may lack it.
    builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    locales = [builtin] if major >= 17 else [["--locale=C.UTF-8"], ["--locale=C"]]
    password_file = area / "password"
    descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            account.own(descriptor)
            file.write(password)
        for locale in locales:
            answer = account.run(
                [
                    programs / "initdb",
                    f"--pgdata={area / 'data'}",
                    f"--username={ROLES['superuser']}",
                    "--auth=scram-sha-256",
                    f"--pwfile={password_file}",
                    "--encoding=UTF8",
                    *locale,
                    "--no-instructions",
                    *([] if durable else ["--no-sync"]),
                ],
                folder=area,
            )
            if answer.returncode == 0:
                return
    finally:
        password_file.unlink(missing_ok=True)
    raise EmbeddedServerError(
        f"initdb in {programs} could not make a data folder in {area}: mend what it complains "
        f"about and start again\n  {answer.stderr.strip()}"
    )


def _remove(area: Path) -> None:
    try:
        shutil.rmtree(area)
    except FileNotFoundError:
        return
    except OSError as error:
        raise EmbeddedServerError(
            f"{area} could not be removed: {error}. Remove it as the user it belongs to"
        ) from error


def _port(found: Postmaster) -> int:
    if found.port is None:
        raise EmbeddedServerError(
            f"the server (process {found.pid}) has not told its port: run `tenantry db start`"
        )
    return found.port
