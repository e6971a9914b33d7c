"""Run a command against a new, empty database: `python -m tenantry.testing COMMAND …`."""

import argparse
import os
import subprocess
import sys
from typing import get_args

from tenantry.exceptions import TenancyError
from tenantry.testing.servers import Choice, find_server


def main(arguments: list[str] | None = None) -> int:
    """Return the command's exit status; the database is gone afterwards.

    The command finds it through `DATABASE_URL`, `MIGRATION_DATABASE_URL` and, where the server
    has that login, `MAINTENANCE_DATABASE_URL`.
    """
    parser = argparse.ArgumentParser(prog="python -m tenantry.testing", description=__doc__)
    parser.add_argument("--server", choices=get_args(Choice), default="embedded")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    if not options.command:
        parser.error("name a command to run")
    try:
        with find_server(options.server) as server:
            database = server.create_database()
            urls = {
                "DATABASE_URL": server.app_url(database.name),
                "MIGRATION_DATABASE_URL": server.owner_url(database.name),
            }
            if "maintenance" in server.logins:
                urls["MAINTENANCE_DATABASE_URL"] = server.maintenance_url(database.name)
            environ = {k: url.render_as_string(hide_password=False) for k, url in urls.items()}
            return subprocess.run(options.command, env=os.environ | environ, check=False).returncode
    except TenancyError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
