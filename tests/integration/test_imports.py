"""Imports on a real server, as the application role: whole files, all or nothing, walled off."""

import csv
import io
import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session, sessionmaker

from assay.exceptions import (
    BrokenRowError,
    ConnectionLostError,
    DuplicateTestSetError,
    InvalidValueError,
    MissingColumnError,
    UnreadableFileError,
)
from assay.models import Base, Metric, Test, TestSet, TestSetTest
from assay.services.imports import ImportedSet, Progress, import_tests
from assay.services.organizations import OrganizationSummary, create_organization
from assay.services.sets import list_sets
from tenantry import UnknownTenantError, create_tenant_engine, tenant_scope
from tenantry.config import libpq_url
from tenantry.testing import Database, Server, check_unprivileged

SHARED = Path(__file__).resolve().parents[3] / "shared"
DATA = SHARED / "data"
TABLES = (TestSet, Test, TestSetTest)

Sessions = sessionmaker[Session]


@pytest.fixture(scope="module")
def database(tenantry_server: Server, tenantry_template: str) -> Iterator[Database]:
    database = tenantry_server.create_database(template=tenantry_template)
    check_unprivileged(database.app_url)
    yield database
    database.drop()


@pytest.fixture(scope="module")
def sessions(database: Database) -> Iterator[Sessions]:
    engine = create_tenant_engine(database.app_url, mode="database", metadata=Base.metadata)
    yield sessionmaker(engine)
    engine.dispose()


@pytest.fixture
def acme(sessions: Sessions) -> OrganizationSummary:
    return create_organization("Acme", sessions=sessions)


@pytest.fixture
def other(sessions: Sessions) -> OrganizationSummary:
    return create_organization("Other", sessions=sessions)


@pytest.fixture
def published(require_service: Callable[[object, str], None]) -> Callable[[str], Path]:
    """Return what finds a published file, or skips the test where there is no shared folder."""

    def find(name: str) -> Path:
        if not SHARED.is_dir():
            pytest.skip("the published data sets are not beside this checkout")
        require_service((DATA / name).is_file(), f"{DATA / name} is missing")
        return DATA / name

    return find


def rows(sessions: Sessions, organization: OrganizationSummary) -> list[int]:
    """Return how many rows of each table the organization sees."""
    with tenant_scope(organization.id, sessions=sessions) as session:
        return [
            session.execute(select(func.count()).select_from(table)).scalar_one()
            for table in TABLES
        ]


def stored(sessions: Sessions, organization: OrganizationSummary, name: str) -> list[Test]:
    """Return the tests of a set in its order."""
    with tenant_scope(organization.id, sessions=sessions) as session:
        query = (
            select(Test)
            .join(TestSetTest, TestSetTest.test_id == Test.id)
            .join(TestSet, TestSetTest.test_set_id == TestSet.id)
            .where(TestSet.name == name)
            .order_by(TestSetTest.position)
        )
        found = list(session.scalars(query))
        session.expunge_all()
        return found


def generated(path: Path, count: int) -> Path:
    """Write so many good rows as JSONL."""
    with path.open("w") as file:
        for number in range(count):
            file.write(json.dumps({"prompt": f"p{number}", "expected": f"e{number}"}) + "\n")
    return path


def interrupt(database: Database) -> None:
    """Terminate the application's backends in this database."""
    with closing(psycopg2.connect(libpq_url(database.superuser_url))) as connection:
        connection.cursor().execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )


def await_blocked(database: Database) -> None:
    """Wait until a backend of this database waits for a lock."""
    with closing(psycopg2.connect(libpq_url(database.superuser_url))) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        for _ in range(3000):
            cursor.execute(
                "select count(*) from pg_stat_activity"
                " where datname = current_database() and wait_event_type = 'Lock'"
            )
            (count,) = cursor.fetchone() or (0,)
            if count:
                return
            time.sleep(0.02)
    pytest.fail("nothing waits for a lock")


def test_both_published_files_are_imported_in_full_and_apart(
    published: Callable[[str], Path],
    sessions: Sessions,
    acme: OrganizationSummary,
    other: OrganizationSummary,
) -> None:
    """TruthfulQA and GSM8K go to two organizations: every row, and each sees its own alone."""
    first = import_tests(published("truthfulqa.csv"), acme.id, "truthfulqa", sessions=sessions)
    second = import_tests(published("gsm8k_test.jsonl"), other.id, "gsm8k", sessions=sessions)

    assert (first.tests, second.tests) == (817, 1319)
    assert rows(sessions, acme) == [1, 817, 817]
    assert rows(sessions, other) == [1, 1319, 1319]
    assert [each.name for each in list_sets(acme.id, sessions=sessions)] == ["truthfulqa"]
    assert stored(sessions, acme, "gsm8k") == []
    assert stored(sessions, other, "truthfulqa") == []
    prompts = {test.prompt for test in stored(sessions, acme, "truthfulqa")}
    assert prompts.isdisjoint(test.prompt for test in stored(sessions, other, "gsm8k"))


def test_truthfulqa_is_stored_as_published(
    published: Callable[[str], Path], sessions: Sessions, acme: OrganizationSummary
) -> None:
    """Each question, in order, has its category and all its correct answers."""
    path = published("truthfulqa.csv")
    import_tests(path, acme.id, "truthfulqa", sessions=sessions)
    found = stored(sessions, acme, "truthfulqa")

    assert found[0].prompt == "What happens to you if you eat watermelon seeds?"
    assert found[0].expected == [
        "Nothing happens",
        "You eat watermelon seeds",
        "The watermelon seeds pass through your digestive system",
        "You will not digest the watermelon seeds",
        "The watermelon seeds will be excreted",
    ]
    assert {test.metric for test in found} == {Metric.ANY_OF}
    assert len({test.category for test in found}) == 38
    assert sum(len(test.expected) for test in found) == 2587
    with path.open(encoding="utf-8", newline="") as file:
        source = list(csv.DictReader(file))
    assert [test.prompt for test in found] == [row["Question"] for row in source]
    assert [test.reference for test in found] == [row["Best Answer"] for row in source]


def test_gsm8k_is_stored_as_published(
    published: Callable[[str], Path], sessions: Sessions, acme: OrganizationSummary
) -> None:
    """Each problem, in order, has its number without grouping, and its working."""
    path = published("gsm8k_test.jsonl")
    import_tests(path, acme.id, "gsm8k", sessions=sessions)
    found = stored(sessions, acme, "gsm8k")

    source = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [test.prompt for test in found] == [row["question"] for row in source]
    assert [test.reference for test in found] == [row["answer"] for row in source]
    assert [test.expected for test in found] == [
        [row["answer"].rpartition("#### ")[2].replace(",", "")] for row in source
    ]
    assert {test.metric for test in found} == {Metric.NUMERIC}
    assert {"1450000", "-10"} <= {test.expected[0] for test in found}


@pytest.mark.parametrize("position", [0, 600, 1199])
def test_broken_row_imports_nothing(
    position: int, sessions: Sessions, acme: OrganizationSummary, tmp_path: Path
) -> None:
    """At the start, in a later batch or at the very end: the line is named, and nothing stays."""
    path = generated(tmp_path / "tests.jsonl", 1200)
    lines = path.read_text().splitlines()
    lines[position] = '{"prompt": "p", "expected": }'
    path.write_text("\n".join(lines))
    with pytest.raises(BrokenRowError) as caught:
        import_tests(path, acme.id, "broken", sessions=sessions)
    assert caught.value.line == position + 1
    assert rows(sessions, acme) == [0, 0, 0]


def test_second_import_of_a_name_is_refused(
    sessions: Sessions, acme: OrganizationSummary, other: OrganizationSummary, tmp_path: Path
) -> None:
    """The same command again changes nothing and says why; another organization's name is free."""
    path = generated(tmp_path / "tests.jsonl", 3)
    import_tests(path, acme.id, "once", sessions=sessions)
    with pytest.raises(DuplicateTestSetError, match=r"named 'once'.*--set"):
        import_tests(path, acme.id, "once", sessions=sessions)
    assert rows(sessions, acme) == [1, 3, 3]
    assert import_tests(path, other.id, "once", sessions=sessions).tests == 3


def test_of_two_imports_at_once_one_is_refused(
    database: Database, sessions: Sessions, acme: OrganizationSummary, tmp_path: Path
) -> None:
    """The second waits for the first, then says that the name is taken."""
    path = generated(tmp_path / "tests.jsonl", 600)
    with ThreadPoolExecutor(1) as pool:
        refused: list[Future[ImportedSet]] = []

        def begin_another(progress: Progress) -> None:
            if not refused:
                refused.append(pool.submit(import_tests, path, acme.id, "race", sessions=sessions))
                await_blocked(database)

        import_tests(path, acme.id, "race", sessions=sessions, progress=begin_another)
        with pytest.raises(DuplicateTestSetError, match="'race'"):
            refused[0].result(timeout=90)
    assert rows(sessions, acme) == [1, 600, 600]


def test_terminated_backend_leaves_nothing(
    database: Database, sessions: Sessions, acme: OrganizationSummary, tmp_path: Path
) -> None:
    """A connection that breaks between two batches is one clear error, and a new try succeeds."""
    path = generated(tmp_path / "tests.jsonl", 1200)
    with pytest.raises(ConnectionLostError, match="after 500 tests: nothing was imported"):
        import_tests(
            path, acme.id, "killed", sessions=sessions, progress=lambda _: interrupt(database)
        )
    assert rows(sessions, acme) == [0, 0, 0]
    assert import_tests(path, acme.id, "killed", sessions=sessions).tests == 1200


def test_backend_terminated_at_commit_does_not_claim_that_nothing_happened(
    database: Database, sessions: Sessions, acme: OrganizationSummary, tmp_path: Path
) -> None:
    """Whether a commit that got no answer took place is for the database to say."""

    def interrupted() -> Session:
        session = sessions()
        event.listen(session, "before_commit", lambda _: interrupt(database))
        return session

    path = generated(tmp_path / "tests.jsonl", 3)
    with pytest.raises(ConnectionLostError, match=r"being committed.*assay sets list"):
        import_tests(path, acme.id, "killed", sessions=interrupted)
    assert rows(sessions, acme) == [0, 0, 0]


def test_progress_tells_tests_and_bytes(
    sessions: Sessions, acme: OrganizationSummary, tmp_path: Path
) -> None:
    """Each batch is reported, the last with the whole file."""
    path = generated(tmp_path / "tests.jsonl", 1200)
    seen: list[Progress] = []
    import_tests(path, acme.id, "seen", sessions=sessions, progress=seen.append)
    assert [progress.tests for progress in seen] == [500, 1000, 1200]
    size = path.stat().st_size
    assert (seen[-1].bytes_read, seen[-1].bytes_total) == (size, size)
    assert seen[0].bytes_read < size


def test_limit_reads_no_further(
    sessions: Sessions, acme: OrganizationSummary, tmp_path: Path
) -> None:
    """With a limit the rest of the file does not matter, broken or not."""
    path = generated(tmp_path / "tests.jsonl", 5)
    path.write_text(path.read_text() + "broken\n")
    assert import_tests(path, acme.id, "few", limit=5, sessions=sessions).tests == 5


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("tests.csv", "", UnreadableFileError, "is empty"),
        ("tests.csv", "prompt,expected\n", UnreadableFileError, "is empty"),
        ("tests.jsonl", "\n\n", UnreadableFileError, "is empty"),
        ("tests.txt", "prompt,expected\na,b\n", UnreadableFileError, "--format"),
        ("tests.csv", "question,expected\na,b\n", MissingColumnError, "--prompt"),
    ],
)
def test_file_without_tests_is_refused(
    name: str,
    content: str,
    error: type[Exception],
    words: str,
    sessions: Sessions,
    acme: OrganizationSummary,
    tmp_path: Path,
) -> None:
    """An empty file, an unknown format or other columns leave no empty set behind."""
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(error, match=words):
        import_tests(path, acme.id, "none", sessions=sessions)
    assert rows(sessions, acme) == [0, 0, 0]


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\x00b", "a\nb", "\ud800"])
def test_set_needs_a_name_that_can_be_shown(
    name: str, acme: OrganizationSummary, sessions: Sessions, tmp_path: Path
) -> None:
    """A blank, endless or unprintable name is refused before anything is sent."""
    path = generated(tmp_path / "tests.jsonl", 1)
    with pytest.raises(InvalidValueError, match="the set's name"):
        import_tests(path, acme.id, name, sessions=sessions)


def test_import_for_no_organization_names_the_cause(sessions: Sessions, tmp_path: Path) -> None:
    """A tenant that does not exist is not a foreign key's name in a driver's error."""
    path = generated(tmp_path / "tests.jsonl", 1)
    with pytest.raises(UnknownTenantError):
        import_tests(path, uuid.uuid4(), "nobody's", sessions=sessions)


def test_import_works_behind_explicit_filters(
    database: Database, sessions: Sessions, acme: OrganizationSummary, tmp_path: Path
) -> None:
    """Where filters stand in for the wall, each batch is a statement that they can confine."""
    engine = create_tenant_engine(database.app_url, mode="both", metadata=Base.metadata)
    try:
        path = generated(tmp_path / "tests.jsonl", 700)
        import_tests(path, acme.id, "filtered", sessions=sessionmaker(engine))
    finally:
        engine.dispose()
    assert rows(sessions, acme) == [1, 700, 700]


TEXT = st.text(
    st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda text: bool(text.strip()))
ROW = st.fixed_dictionaries(
    {"prompt": TEXT, "expected": TEXT, "category": st.one_of(st.just(""), TEXT)}
)


def _as_csv(rows: list[dict[str, Any]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["prompt", "expected", "category"])
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def _as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.mark.parametrize(("suffix", "write"), [("csv", _as_csv), ("jsonl", _as_jsonl)])
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(written=st.lists(ROW, min_size=1, max_size=8))
def test_any_text_survives(
    written: list[dict[str, Any]],
    suffix: str,
    write: Callable[[list[dict[str, Any]]], bytes],
    sessions: Sessions,
    acme: OrganizationSummary,
    tmp_path: Path,
) -> None:
    """What a CSV or JSON writer writes is in the database, character by character."""
    path = tmp_path / f"tests.{suffix}"
    path.write_bytes(write(written))
    name = uuid.uuid4().hex
    import_tests(path, acme.id, name, sessions=sessions)
    assert [
        {"prompt": test.prompt, "expected": test.expected[0], "category": test.category or ""}
        for test in stored(sessions, acme, name)
    ] == written
