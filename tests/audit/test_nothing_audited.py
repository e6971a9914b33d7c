from typing import Any

import pytest
from tests.audit.conftest import Audited


@pytest.mark.parametrize(
    ("names", "object_type", "name"),
    [
        ({"app_role": "nobody at all"}, "role", '"nobody at all"'),
        ({"root_table": "customers", "root_required": True}, "table", "customers"),
        ({"root_column": "key"}, "table", "public.organizations"),
        ({"schemas": ("public", 'ab,"sent')}, "schema", '"ab,""sent"'),
    ],
)
def test_nothing_audited(
    audited: Audited, names: dict[str, Any], object_type: str, name: str
) -> None:
    """A name that leads nowhere is an error, not an audit that passes for want of objects."""
    before = audited.config
    audited.configure(**names)
    found = [each for each in audited.audit().findings if each.check == "nothing_audited"]
    assert [(each.object_type, each.object) for each in found] == [(object_type, name)]
    assert audited.audit().fails()
    audited.config = before
    assert audited.audit().findings == ()


def test_database_without_a_tenant_table_does_not_pass(audited: Audited) -> None:
    """Nothing to look at is no proof."""
    audited.configure(tenant_column="tenant_id", root_table="none", token_table="none")
    (found,) = audited.audit().findings
    assert (found.check, found.object) == ("nothing_audited", audited.database.name)
    assert found.problem == "no table has the column tenant_id"
