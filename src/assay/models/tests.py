"""Sets of tests: what is asked, and what counts as a right answer."""

import enum
import uuid

from sqlalchemy import CheckConstraint, Integer, Text, UniqueConstraint, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from assay.models.base import Base, Timestamped
from assay.models.organizations import organization_reference
from tenantry import TenantMixin, current_tenant, tenant_index, tenant_reference
from tenantry.types import text_enum


class Metric(enum.StrEnum):
    """How an answer is compared with what was expected."""

    EXACT = "exact"
    CONTAINS = "contains"
    REGEX = "regex"
    NUMERIC = "numeric"
    ANY_OF = "any_of"


class TestSet(TenantMixin, Timestamped, Base):
    """A named set of tests."""

    __tablename__ = "test_sets"
    __table_args__ = (
        organization_reference(),
        UniqueConstraint("organization_id", "name"),
        CheckConstraint("btrim(name) <> ''", name="name"),
        tenant_index("ix_test_sets_organization_id_created_at_id", "created_at", "id"),
    )

    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text, server_default="")

    tests: Mapped[list["Test"]] = relationship(
        secondary="test_set_tests", order_by="TestSetTest.position", viewonly=True
    )


class Test(TenantMixin, Timestamped, Base):
    """One question and the answers that count as right."""

    __tablename__ = "tests"
    __table_args__ = (
        organization_reference(),
        CheckConstraint("btrim(prompt) <> ''", name="prompt"),
        CheckConstraint("cardinality(expected) > 0", name="expected"),
        tenant_index("ix_tests_organization_id_created_at_id", "created_at", "id"),
    )

    prompt: Mapped[str] = mapped_column(Text)
    expected: Mapped[list[str]] = mapped_column(ARRAY(Text))
    metric: Mapped[Metric] = mapped_column(text_enum(Metric, "metric"))
    category: Mapped[str | None] = mapped_column(Text)
    reference: Mapped[str | None] = mapped_column(Text)


class TestSetTest(Base):
    """A test's place in a set."""

    __tablename__ = "test_set_tests"
    __table_args__ = (
        organization_reference(),
        tenant_reference("test_sets", "test_set_id", ondelete="CASCADE"),
        tenant_reference("tests", "test_id", ondelete="CASCADE"),
        UniqueConstraint("organization_id", "test_set_id", "position"),
        tenant_index("ix_test_set_tests_organization_id_test_id", "test_id"),
    )

    organization_id: Mapped[uuid.UUID] = mapped_column(
        Uuid, primary_key=True, server_default=text(current_tenant())
    )
    test_set_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    test_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    position: Mapped[int] = mapped_column(Integer)
