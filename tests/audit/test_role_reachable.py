import pytest
from tests.audit.conftest import Audited, MakeRole


def test_role_reachable(audited: Audited, make_role: MakeRole) -> None:
    """SET ROLE is all it takes to read what the role was not granted."""
    role, reporting = make_role("noinherit"), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        f"grant {reporting} to {role}",
        'create table "select" (number integer)',
        f'grant select on "select", alembic_version to {reporting}',
    )
    found = audited.finds("role_reachable", role)
    assert found.problem.endswith('SELECT on public."select" and more on 1 others')
    audited.mended()


def test_what_is_inherited_is_the_roles_own(audited: Audited, make_role: MakeRole) -> None:
    """Groups that hold the application's grants are an ordinary way to give them."""
    role, group = make_role(), make_role()
    audited.configure(app_role=role)
    audited.broken_by(f"grant {group} to {role}", f"grant select on alembic_version to {group}")
    assert audited.audit().findings == ()


def test_one_login_for_two_works_is_found(audited: Audited, make_role: MakeRole) -> None:
    """A login that is also a member of the broker's role reads all tenants' messages."""
    role, login, broker = make_role(), make_role(), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        f"grant {role}, {broker} to {login}",
        "create schema queue",
        "create table queue.messages (body text)",
        f"alter table queue.messages owner to {broker}",
    )
    found = audited.finds("role_reachable", login)
    assert f"can become {broker}, which has " in found.problem
    assert "on queue.messages" in found.problem
    audited.mended()


def test_way_through_a_third_role_is_a_persons_to_end(
    audited: Audited, make_role: MakeRole
) -> None:
    """The role in between has nothing of its own and is not what is found."""
    role, between, far = make_role("noinherit"), make_role("noinherit"), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        f"grant {between} to {role}",
        f"grant {far} to {between}",
        f"grant select on alembic_version to {far}",
    )
    found = audited.finds("role_reachable", role)
    assert far in found.problem
    audited.mended(f"revoke {between} from {role}")


def test_role_with_nothing_more_is_not_found(audited: Audited, make_role: MakeRole) -> None:
    """A group without grants, and one that may do the same."""
    role, group, same = make_role("noinherit"), make_role(), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        f"grant {group}, {same} to {role}", f"grant select on test_sets to {role}, {same}"
    )
    assert audited.audit().findings == ()


def test_column_of_a_table_is_found(audited: Audited, make_role: MakeRole) -> None:
    """A grant on columns is none on the table."""
    role, reporting = make_role("noinherit"), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        "create table billing (id integer, card text)",
        f"grant select (card) on billing to {reporting}",
        f"grant {reporting} to {role}",
    )
    found = audited.finds("role_reachable", role)
    assert found.problem.endswith("SELECT (card) on public.billing")
    audited.mended()


@pytest.mark.parametrize("grant", ["select on billing", "select (card) on billing"])
def test_what_another_role_adds_by_inheritance_is_found(
    audited: Audited, make_role: MakeRole, grant: str
) -> None:
    """The application holds its grants itself, and was made a member of a reporting role too."""
    role, reporting = make_role(), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        "create table billing (id integer, card text)",
        f"grant select on test_sets to {role}",
        f"grant {grant} to {reporting}",
        f"grant {reporting} to {role}",
    )
    audited.finds("role_reachable", role)
    audited.mended()


def test_owner_of_a_shared_table_is_found(audited: Audited, make_role: MakeRole) -> None:
    """Who owns it changes and drops it, though the application may read it too."""
    role, keeper = make_role(), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        "create table prices (price integer)",
        f"alter table prices owner to {keeper}",
        f"grant select on prices to {role}",
        f"grant {keeper} to {role}",
    )
    found = audited.finds("role_reachable", role)
    assert "DELETE, INSERT" in found.problem
    audited.mended()
