from typing import Any

import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import MINE, RULE, THEIRS, answer, walled


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


def test_table_that_is_called_as_the_root_table(audited: Audited) -> None:
    """It has a tenant column of its own: walled by its id it shows a tenant what is another's."""
    by_id = RULE.replace("organization_id", "id")
    audited.broken_by(
        "create schema crm",
        "grant usage on schema crm to tenantry_app",
        *walled("crm.organizations", "id uuid, unique (organization_id, id)"),
    )
    assert audited.audit().findings == ()
    audited.broken_by(
        f"alter policy tenant on crm.organizations using ({by_id})",
        f"alter policy wall on crm.organizations using ({by_id})",
        f"insert into crm.organizations values ('{THEIRS}', '{MINE}')",
    )
    assert answer(audited, "select organization_id::text from crm.organizations") == [(THEIRS,)]
    found = {(each.check, each.object) for each in audited.audit().findings}
    assert ("policy_expression", "tenant on crm.organizations") in found
    audited.configure(schemas=("crm",))
    assert {each.check for each in audited.audit().findings} >= {"policy_expression"}
