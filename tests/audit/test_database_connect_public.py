from tests.audit.conftest import Audited


def test_database_connect_public(audited: Audited) -> None:
    """Whose login needs the database a person knows; CONNECT for one role is no fault."""
    name = audited.database.name
    audited.broken_by(f"grant connect on database {name} to public, pg_monitor")
    audited.finds("database_connect_public", name)
    audited.mended(f"revoke connect on database {name} from public")
