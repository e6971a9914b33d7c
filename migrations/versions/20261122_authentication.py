"""The one look before a tenant is known: whose token it is."""

from alembic import op

revision: str = "20261122_authentication"
down_revision: str | None = "20261122_policies"
branch_labels: str | None = None
depends_on: str | None = None

# Stable, pinned search_path with pg_temp last, no dynamic SQL, equality on a 256-bit hash.
LOOK_UP = """\
create function public.authenticate_token(token_hash bytea)
  returns table (organization_id uuid, user_id uuid)
  language sql stable strict security definer
  set search_path = pg_catalog, public, pg_temp
as $$
  select t.organization_id, t.user_id
  from public.api_tokens as t
  where t.token_hash = authenticate_token.token_hash
    and t.revoked_at is null
    and (t.expires_at is null or t.expires_at > statement_timestamp())
    and not exists (
      select from public.api_tokens as other
      where other.token_hash = t.token_hash
        and (other.organization_id, other.id) <> (t.organization_id, t.id)
    )
$$"""


def upgrade() -> None:
    # A role must hold CREATE on a schema at the moment it comes to own something there.
    op.execute("grant create on schema public to tenantry_authenticator")
    op.assume_role("tenantry_authenticator")
    op.execute(LOOK_UP)
    op.execute("revoke all on function public.authenticate_token(bytea) from public")
    op.execute("grant execute on function public.authenticate_token(bytea) to tenantry_app")
    op.assume_role(None)
    op.execute("revoke create on schema public from tenantry_authenticator")
    op.assume_owner()


def downgrade() -> None:
    op.assume_role("tenantry_authenticator")
    op.execute("drop function public.authenticate_token(bytea)")
    op.assume_owner()
