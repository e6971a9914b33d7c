"""Relationships over `tenant_reference`, as docs/adopting.md declares them."""

import re
import sys
import types
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from tenantry import create_tenant_engine, tenant_scope
from tenantry.alembic import AssumeRoleOp, CreateTenancyRolesOp, IsolateTableOp
from tenantry.testing import Server

PAGE = Path(__file__).parents[2] / "docs" / "adopting.md"
A = uuid.UUID(int=0xA)


@pytest.fixture(scope="module", params=["optional", "owned"])
def shop(request: pytest.FixtureRequest, tenantry_server: Server) -> Iterator[Any]:
    """Return the page's models, in a database of their own, and what opens a Session on them."""
    section = PAGE.read_text().partition("### Relationships")[2]
    (code,) = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    if request.param == "owned":
        code = code.replace(
            'passive_deletes="all"', 'passive_deletes=True, cascade="all, delete-orphan"'
        ).replace('ondelete="SET NULL"', 'ondelete="CASCADE"')
    module: Any = types.ModuleType(f"shop_{request.param}")
    # Mapped[…] is looked up in the module.
    sys.modules[module.__name__] = module
    exec(compile(code, str(PAGE), "exec"), module.__dict__)  # noqa: S102 - the page's code
    database = tenantry_server.create_database()
    owner = create_engine(database.owner_url)
    with owner.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        connection.execute(text("create table alembic_version (version_num text)"))
        operations.invoke(CreateTenancyRolesOp([str(database.app_url.username)]))
        operations.invoke(AssumeRoleOp("tenantry_owner"))
        module.Base.metadata.create_all(connection)
        for name in ("orders", "items"):
            operations.invoke(IsolateTableOp(name))
    owner.dispose()
    engine = create_tenant_engine(database.app_url, mode="database", metadata=module.Base.metadata)
    module.sessions = sessionmaker(engine)
    module.owned = request.param == "owned"
    yield module
    engine.dispose()
    database.drop()
    del sys.modules[module.__name__]


def ordered(shop: Any, session: Session) -> tuple[Any, Any]:
    """Return an order and its two items' first, saved and read again."""
    order = shop.Order(items=[shop.Item(), shop.Item()])
    session.add(order)
    session.flush()
    session.expire_all()
    return order, order.items[0]


def test_item_leaves_its_order_by_assignment(shop: Any) -> None:
    """The item keeps its tenant; one that an order owns is gone with it."""
    with tenant_scope(A, sessions=shop.sessions) as session:
        order, item = ordered(shop, session)
        item.order = None
        session.flush()
        session.expire_all()
        assert len(order.items) == 1
        if not shop.owned:
            assert (item.order_id, item.organization_id) == (None, A)


def test_item_leaves_its_order_by_the_list(shop: Any) -> None:
    """From the other side it is the same."""
    with tenant_scope(A, sessions=shop.sessions) as session:
        order, item = ordered(shop, session)
        order.items.remove(item)
        session.flush()
        session.expire_all()
        assert len(order.items) == 1
        kept = session.query(shop.Item).filter_by(order_id=None, organization_id=A).count()
        assert (kept > 0) is not shop.owned


@pytest.mark.parametrize("loaded", [True, False])
def test_order_is_deleted(shop: Any, loaded: bool) -> None:
    """The database sees to its items, whether they are loaded or not."""
    with tenant_scope(A, sessions=shop.sessions) as session:
        session.query(shop.Item).delete()
        order, _ = ordered(shop, session)
        if not loaded:
            session.expire_all()
        session.delete(order)
        session.flush()
        session.expire_all()
        left = session.query(shop.Item).all()
        assert [item.order_id for item in left] == ([] if shop.owned else [None, None])
