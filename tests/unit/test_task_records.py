"""Which classes of task records an application may be given."""

import pytest
from celery import Celery
from sqlalchemy import BigInteger, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenantry import ConfigurationError, TenancyConfig, current_tenant
from tenantry.celery import TaskRecordMixin, install_tenancy

KEY = "k" * 32
NUMBERS = TenancyConfig(tenant_column="tenant_id", id_type="bigint")


class Base(DeclarativeBase):
    """Base of the classes."""


class Usual(TaskRecordMixin, Base):
    """Records under the default names."""

    __tablename__ = "usual_records"


class Numbered(TaskRecordMixin, Base):
    """Records under other names."""

    __tablename__ = "numbered_records"
    organization_id: Mapped[int] = mapped_column(  # type: ignore[assignment]
        "tenant_id", BigInteger, primary_key=True, server_default=text(current_tenant(NUMBERS))
    )


@pytest.mark.parametrize(
    ("records", "config"),
    [
        (Usual, NUMBERS),
        (Usual, TenancyConfig(tenant_column="tenant_id")),
        (Usual, TenancyConfig(id_type="bigint")),
        (Numbered, TenancyConfig()),
    ],
)
def test_records_of_another_configuration_are_refused(
    records: type[TaskRecordMixin], config: TenancyConfig
) -> None:
    """Their table would have no wall; the application is left without the layer."""
    app = Celery("app", set_as_current=False)
    with pytest.raises(ConfigurationError, match=f"{records.__name__} keeps the tenant in"):
        install_tenancy(app, key=KEY, records=records, config=config)
    install_tenancy(app, key=KEY, config=config)


def test_records_with_the_configured_column_are_accepted() -> None:
    """A class that overrides the column is of its own configuration."""
    install_tenancy(Celery("usual", set_as_current=False), key=KEY, records=Usual)
    install_tenancy(
        Celery("numbered", set_as_current=False), key=KEY, records=Numbered, config=NUMBERS
    )
