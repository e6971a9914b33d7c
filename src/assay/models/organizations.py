"""Organizations, the tenants themselves; their users; the tokens by which users are recognised."""

import uuid
from datetime import datetime

from sqlalchemy import (
    DDL,
    CheckConstraint,
    DateTime,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    Uuid,
    event,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from assay.models.base import Base, Timestamped
from tenantry import DEFAULT_CONFIG, TenantMixin, tenant_index, tenant_info, tenant_reference


class Organization(Timestamped, Base):
    """A tenant. Names are not unique: a unique name would tell one tenant of another."""

    __tablename__ = "organizations"
    __table_args__ = (
        CheckConstraint("btrim(name) <> ''", name="name"),
        {"info": tenant_info("id")},
    )

    id: Mapped[uuid.UUID] = mapped_column(
        Uuid, primary_key=True, server_default=text("gen_random_uuid()"), sort_order=-10
    )
    name: Mapped[str] = mapped_column(Text)


def organization_reference() -> ForeignKeyConstraint:
    """Return the foreign key of a tenant table to its organization."""
    return ForeignKeyConstraint(["organization_id"], ["organizations.id"], ondelete="CASCADE")


class User(TenantMixin, Timestamped, Base):
    """A person of one organization."""

    __tablename__ = "users"
    __table_args__ = (
        organization_reference(),
        UniqueConstraint("organization_id", "email"),
        CheckConstraint("email like '%_@_%'", name="email"),
        tenant_index("ix_users_organization_id_created_at_id", "created_at", "id"),
    )

    email: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)


class ApiToken(TenantMixin, Timestamped, Base):
    """A user's token: its SHA-256 hash, never the token.

    The authenticator role reads this table before a tenant is known, to find out whose token it
    is; the index of that look-up is the one not led by the organization. It is a hash index, which
    serves equality alone, and the column has no statistics: a range scan or an estimate could be
    searched, bit by bit, for another tenant's hash.
    """

    __tablename__ = "api_tokens"
    __table_args__ = (
        organization_reference(),
        tenant_reference("users", "user_id", ondelete="CASCADE"),
        UniqueConstraint("organization_id", "token_hash"),
        CheckConstraint("octet_length(token_hash) = 32", name="token_hash"),
        tenant_index("ix_api_tokens_organization_id_user_id", "user_id"),
        Index(None, "token_hash", postgresql_using="hash"),
        {"info": tenant_info(reader_role=DEFAULT_CONFIG.authenticator_role)},
    )

    user_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    name: Mapped[str] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(Text)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


event.listen(
    ApiToken.__table__,
    "after_create",
    DDL("alter table %(fullname)s alter column token_hash set statistics 0"),  # type: ignore[no-untyped-call]
)
