"""What the planner does with a query of the application's, once a tenant is set."""

from collections.abc import Iterator
from typing import Any

from tests.audit.conftest import Audited

from tenantry.testing.administration import connected


def planned(audited: Audited, query: str, key: str) -> list[str]:
    """Return the values of a key (Node Type, Index Cond) in the plan's nodes."""
    with connected(audited.database.app_url) as cursor:
        cursor.execute("set app.current_organization = '00000000-0000-0000-0000-00000000000a'")
        cursor.execute(f"explain (format json) {query}")
        ((((explained,),)),) = cursor.fetchall()
    return [str(node[key]) for node in _nodes(explained["Plan"]) if key in node]


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", []):
        yield from _nodes(inner)
