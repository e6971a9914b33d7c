"""A tenant is made of valid ids alone, and is told to the server in one agreed way."""

import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry import InvalidTenantError, TenancyConfig, Tenant
from tenantry.config import IdType
from tenantry.context import (
    command_writer,
    function_query,
    function_writer,
    setting_query,
)

A = uuid.UUID("00000000-0000-0000-0000-00000000000a")
USER = uuid.UUID("00000000-0000-0000-0000-0000000000aa")
SMALL = TenancyConfig(id_type="integer")
BIG = TenancyConfig(id_type="bigint")


class RecordingCursor:
    """Notes what would be sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[object, ...]]] = []

    def execute(self, operation: str, parameters: tuple[object, ...] = (), /) -> object:
        """Note one message."""
        self.sent.append((operation, parameters))
        return None


class Liar(uuid.UUID):
    """A UUID that prints an attack."""

    def __str__(self) -> str:
        return "'; drop table users; --"


class LyingInt(int):
    """An int that prints an attack."""

    def __str__(self) -> str:
        return "'; drop table users; --"

    __repr__ = __str__


@settings(derandomize=True, database=None)
@given(st.uuids())
def test_uuid_and_its_text_are_the_same_tenant(value: uuid.UUID) -> None:
    """However a UUID is written, the tenant is the same."""
    expected = Tenant(value)
    for written in (value, str(value), str(value).upper(), value.hex, f"{{{value}}}", value.urn):
        assert Tenant.parse(written) == expected


@settings(derandomize=True, database=None)
@given(st.text() | st.binary() | st.integers() | st.floats() | st.booleans() | st.none())
def test_nothing_but_a_uuid_passes(value: object) -> None:
    """Random values raise the error of our own, whatever they are."""
    try:
        parsed = Tenant.parse(value)
    except InvalidTenantError:
        return
    assert isinstance(value, str)
    assert parsed.organization_id == uuid.UUID(value)


@settings(derandomize=True, database=None)
@given(st.integers() | st.text(alphabet="0123456789 -+٣", max_size=22))
def test_integer_ids_stay_in_their_range(value: object) -> None:
    """An integer id is what PostgreSQL's type can hold, as a number or as its decimal digits."""
    for config, bits in ((SMALL, 31), (BIG, 63)):
        try:
            parsed = Tenant.parse(value, config=config).organization_id
        except InvalidTenantError:
            continue
        assert isinstance(parsed, int)
        assert -(2**bits) <= parsed < 2**bits
        assert parsed == int(str(value))


@pytest.mark.parametrize("config", [SMALL, BIG])
@pytest.mark.parametrize("value", [True, False, 1.0, b"1", A, "1.0", "0x1", "", " 1", "1_0", "²"])
def test_what_only_looks_like_an_integer_is_refused(config: TenancyConfig, value: object) -> None:
    """Booleans, floats, bytes and digits of other scripts are no integer ids."""
    with pytest.raises(InvalidTenantError, match=f"of type {config.id_type}"):
        Tenant.parse(value, config=config)


def test_subclasses_lose_what_they_print() -> None:
    """An id of a subclass is kept as the plain value that it is."""
    tenant = Tenant.parse(Liar(int=A.int))
    assert type(tenant.organization_id) is uuid.UUID
    assert str(tenant.organization_id) == str(A)
    number = Tenant.parse(LyingInt(7), config=BIG).organization_id
    assert type(number) is int
    assert str(number) == "7"


def test_user_is_optional_and_validated_alike() -> None:
    """A user id is checked as the organization's is; only None leaves it out."""
    assert Tenant.parse(A) == Tenant(A, None)
    assert Tenant.parse(A, str(USER)) == Tenant(A, USER)
    for wrong in ("", 0, b"", False):
        with pytest.raises(InvalidTenantError, match="user_id"):
            Tenant.parse(A, wrong)


def test_error_names_the_argument_and_shows_little() -> None:
    """The message tells which id is wrong and repeats no more than a line of it."""
    with pytest.raises(InvalidTenantError, match="organization_id must be a UUID") as caught:
        Tenant.parse("x" * 10_000)
    assert len(str(caught.value)) < 300
    assert isinstance(caught.value, ValueError)


def test_tenant_reads_as_what_it_is() -> None:
    """Logs and errors name the organization, and the user where there is one."""
    assert str(Tenant(A)) == f"organization {A}"
    assert str(Tenant(A, USER)) == f"organization {A}, user {USER}"


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(
    ("tenant", "values"),
    [(Tenant(A, USER), (str(A), str(USER))), (Tenant(A), (str(A), "")), (None, ("", ""))],
)
def test_function_writer_sends_one_query(
    local: bool, tenant: Tenant | None, values: tuple[str, str]
) -> None:
    """Both settings travel as parameters of one query; without a tenant both are emptied."""
    cursor = RecordingCursor()
    function_writer(TenancyConfig(), local=local)(cursor, tenant)
    assert cursor.sent == [
        (
            f"select pg_catalog.set_config('app.current_organization', %s, {local}), "
            f"pg_catalog.set_config('app.current_user', %s, {local})",
            values,
        )
    ]


@pytest.mark.parametrize(("local", "command"), [(True, "set local"), (False, "set")])
@pytest.mark.parametrize(
    ("tenant", "values"),
    [(Tenant(A, USER), (A, USER)), (Tenant(A), (A, "")), (None, ("", ""))],
)
def test_setting_query_sets_both_in_one_message(
    local: bool, command: str, tenant: Tenant | None, values: tuple[object, object]
) -> None:
    """Both settings go in one string; without a tenant both are emptied."""
    assert setting_query(TenancyConfig(), local=local, version=18)(tenant) == (
        f'{command} "app"."current_organization" = \'{values[0]}\'; '
        f'{command} "app"."current_user" = \'{values[1]}\''
    )


@pytest.mark.parametrize("version", [None, 14, 17])
def test_setting_query_is_no_command_where_each_would_be_counted(version: int | None) -> None:
    """Before PostgreSQL 18 pg_stat_statements would have an entry for each tenant."""
    query = setting_query(TenancyConfig(), local=True, version=version)(Tenant(A))
    assert query == function_query(TenancyConfig(), local=True)(Tenant(A))
    assert query.startswith("select pg_catalog.set_config(")


def test_command_writer_sends_each_setting_by_itself() -> None:
    """For Citus each SET LOCAL is a message of its own, and a keyword as a name is quoted."""
    cursor = RecordingCursor()
    command_writer(TenancyConfig())(cursor, Tenant(A, USER))
    assert [message for message, _ in cursor.sent] == [
        "set local citus.propagate_set_commands = 'local'",
        f'set local "app"."current_organization" = \'{A}\'',
        f'set local "app"."current_user" = \'{USER}\'',
    ]


def test_command_writer_empties_both_settings_without_a_tenant() -> None:
    """No tenant is told as clearly as one is."""
    cursor = RecordingCursor()
    command_writer(TenancyConfig())(cursor, None)
    assert [message.partition(" = ")[2] for message, _ in cursor.sent] == ["'local'", "''", "''"]


@pytest.mark.parametrize("id_type", ["uuid", "bigint", "integer"])
def test_command_writer_renders_nothing_but_parsed_ids(id_type: IdType) -> None:
    """Values in SET LOCAL are no parameters, so only what was parsed may stand there."""
    config = TenancyConfig(id_type=id_type)
    value: Any = Liar(int=A.int) if id_type == "uuid" else LyingInt(7)
    cursor = RecordingCursor()
    tenant = Tenant.parse(value, value, config=config)
    command_writer(config)(cursor, tenant)
    sent = [message for message, _ in cursor.sent]
    sent += [setting_query(config, local=True, version=each)(tenant) for each in (15, 18)]
    assert not any("drop" in message for message in sent)
