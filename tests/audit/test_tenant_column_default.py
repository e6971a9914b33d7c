import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import walled

TENANT = "organization_id on public.notes"
SET = "alter table notes alter column organization_id set default"


@pytest.mark.parametrize(
    "default",
    [
        "'11111111-1111-1111-1111-111111111111'",
        "gen_random_uuid()",
        "nullif(current_setting('app.tenant', true), '')::uuid",
    ],
)
def test_tenant_column_default(audited: Audited, default: str) -> None:
    """A constant, a new id or another setting is not the tenant."""
    audited.broken_by(*walled("notes"), f"{SET} {default}")
    found = audited.finds("tenant_column_default", TENANT)
    assert found.problem.startswith("the default is ")
    audited.mended()


@pytest.mark.parametrize(
    "default",
    [
        "null",
        "null::uuid",
        "current_setting('app.current_organization')::uuid",
        "(nullif(current_setting('APP.current_organization', true), '')::uuid)",
        "tenant()",
    ],
)
def test_the_tenant_however_written_passes(audited: Audited, default: str) -> None:
    """So do no default at all, and a function of one's own, whose text tells nothing."""
    audited.broken_by(
        "create function tenant() returns uuid language sql stable return "
        "nullif(current_setting('app.current_organization', true), '')::uuid",
        *walled("notes"),
    )
    assert audited.audit().findings == ()
    audited.broken_by(f"{SET} {default}")
    assert audited.audit().findings == ()
