import pytest
from tests.audit.conftest import Audited

SETTING = "nullif(current_setting('app.current_organization', true), '')::uuid"
CONTAINED = (("policy_contained", "extra on public.test_sets"),)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"language plpgsql stable as $$ begin return {SETTING}; end $$", "written in plpgsql"),
        (f"language plpgsql volatile as $$ begin return {SETTING}; end $$", "is VOLATILE"),
        (f"language sql stable set work_mem = '4MB' return {SETTING}", "has a SET clause"),
        (
            "language sql stable return (select id from test_sets limit 1)",
            "reads a table",
        ),
        (
            "language sql stable security definer set search_path = pg_catalog, pg_temp "
            f"return {SETTING}",
            "is SECURITY DEFINER, has a SET clause",
        ),
    ],
)
def test_policy_function_costly(audited: Audited, body: str, said: str) -> None:
    """Such a function cannot be folded into the query, and is called for each row."""
    audited.broken_by(
        f'create function "ten ""ant"() returns uuid {body}',
        'alter function "ten ""ant"() owner to tenantry_owner',
        'revoke execute on function "ten ""ant"() from public',
        'create policy extra on test_sets using (organization_id = "ten ""ant"())',
    )
    found = audited.finds("policy_function_costly", 'public."ten ""ant"()', besides=CONTAINED)
    assert said in found.problem
    audited.mended('drop function "ten ""ant"() cascade')


def test_functions_called_once_pass(audited: Audited) -> None:
    """A sub-select makes one call a statement; an expression of SQL is folded into the query."""
    audited.broken_by(
        "create function tenant() returns uuid language plpgsql "
        f"as $$ begin return {SETTING}; end $$",
        f"create function folded() returns uuid language sql volatile return {SETTING}",
        "create policy extra on test_sets "
        "using (organization_id = (select tenant()) and organization_id = folded())",
    )
    audited.finds(*CONTAINED[0])
    audited.broken_by(
        "alter policy extra on test_sets with check (organization_id = tenant())",
    )
    audited.finds("policy_function_costly", "public.tenant()", besides=CONTAINED)
