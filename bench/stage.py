"""Where contenders meet: a database for each kind on one server, a process for each contender."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy.engine import URL

from bench.contenders.work import Row, Size
from bench.figures import ROOT
from tenantry.testing import Database, Server


@dataclass(frozen=True, slots=True)
class Variant:
    """A contender with its option.

    Attributes:
        module: of bench.contenders.
        as_owner: whether it wants a login that owns the table and may create roles.
    """

    name: str
    module: str
    option: str = ""
    as_owner: bool = False

    @property
    def is_peer(self) -> bool:
        """Whether it needs a package that this project does not depend on."""
        return self.module in {"rls_package", "tenant_roles"}


BASE: Final = "explicit filter"
VARIANTS: Final = (
    Variant(BASE, "explicit"),
    Variant("tenantry", "layer"),
    Variant("tenantry, transaction", "layer", "transaction prefix"),
    Variant("tenantry, transaction, begin", "layer", "transaction begin"),
    Variant("rls", "rls_package"),
    Variant("sqlalchemy-tenants", "tenant_roles", as_owner=True),
    Variant("schema per tenant, search_path", "schemas", "search_path"),
    Variant("schema per tenant, map", "schemas", "map"),
)


class Player:
    """A contender's process.

    Attributes:
        backend: the process that serves its connection, once it is open.
    """

    def __init__(self, module: str, python: Path | str = sys.executable) -> None:
        """Start it."""
        self.module = module
        self.backend = 0
        self.process = subprocess.Popen(
            [python, "-m", "bench.contenders", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=30)

    def tell(self, **asked: Any) -> None:
        """Ask for something, and do not wait for it."""
        if self.process.stdin is None:
            raise RuntimeError("the process has no pipes")
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()

    def told(self) -> Any:
        """Return the answer to what was asked first.

        Raises:
            RuntimeError: the process ended instead; it has written why.
        """
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise RuntimeError(f"bench.contenders {self.module} ended before it answered")
        return json.loads(line)

    def ask(self, **asked: Any) -> Any:
        """Return the answer."""
        self.tell(**asked)
        return self.told()


class Stage:
    """The contenders' databases on one server.

    Attributes:
        size: of each database.
    """

    def __init__(self, server: Server, size: Size, python: Path | str = sys.executable) -> None:
        """Make none yet."""
        self.size = size
        self._server = server
        self._python = python
        self._databases: dict[str, Database] = {}

    def prepare(self, variant: Variant) -> None:
        """Make the variant's database, unless another variant of its kind has it already."""
        if variant.module in self._databases:
            return
        database = self._server.create_database()
        urls = (database.owner_url, database.app_url, database.superuser_url)
        with Player(variant.module, self._python) as player:
            player.ask(
                do="prepare",
                urls=[url.render_as_string(hide_password=False) for url in urls],
                size=[self.size.tenants, self.size.rows],
            )
        self._databases[variant.module] = database

    def url(self, variant: Variant) -> URL:
        """Return the URL of the variant's login."""
        database = self._databases[variant.module]
        return database.owner_url if variant.as_owner else database.app_url

    def open(self, player: Player, variant: Variant, url: URL | None = None) -> None:
        """Connect the player as this variant, to the variant's own URL if none is given."""
        target = (url or self.url(variant)).render_as_string(hide_password=False)
        player.backend = player.ask(do="open", url=target, option=variant.option)

    @contextmanager
    def player(self, variant: Variant) -> Iterator[Player]:
        """Yield a process of the variant, connected."""
        with Player(variant.module, self._python) as player:
            self.open(player, variant)
            yield player

    def row(self, number: int) -> Row:
        """Return a row: all tenants by turns, and of each tenant all rows by turns."""
        # 7 and 1,000, or 7 and 100, have no common divisor.
        tenant, turn = number * 7 % self.size.tenants, number // self.size.tenants
        return Row(tenant + 1, (turn * 7 + tenant) % self.size.rows + 1)


def named(names: Sequence[str]) -> list[Variant]:
    """Return the variants of these names, in their own order."""
    return [variant for variant in VARIANTS if variant.name in names]
