"""Tasks that are executed where they are called: eagerly, or as the function they are."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest
from celery import Celery
from tests.fixtures.task_app import Urls, make_app
from tests.fixtures.task_board import Board, labels, letters, new_label
from tests.fixtures.task_ways import WAYS, Way
from tests.fixtures.worlds import TENANTS, new_world

from tenantry import MissingTenantError, Tenant
from tenantry.celery import current_tenant, get_db_session, publishing_for
from tenantry.testing import Server


@dataclass(frozen=True, slots=True)
class Place:
    """An application that executes its tasks at once, and the board that they write on."""

    app: Celery
    board: Board


@pytest.fixture(scope="module")
def place(tenantry_server: Server, tenantry_template: str) -> Iterator[Place]:
    """Return an application with `task_always_eager`."""
    with new_world(tenantry_server, tenantry_template) as world:
        database = tenantry_server.create_database()
        urls = Urls.of(broker=database.owner_url, application=world.walled.app_url)
        with closing(Board(urls.board)) as board:
            board.create()
            app = make_app(urls, task_always_eager=True, task_eager_propagates=False)
            yield Place(app, board)
        database.drop()


# Celery has no eager form of send_task(); its eager chord raises at once when a member fails, and
# its eager replace() waits for a result, which it forbids to do in a task.
WITHOUT_EAGER_FORM = {"send_task", "chord-that-fails", "replace", "replace-in-chain"}
EAGER = {name: way for name, way in WAYS.items() if name not in WITHOUT_EAGER_FORM}


@pytest.mark.parametrize("way", EAGER.values(), ids=EAGER)
def test_eager_task_runs_for_its_caller(place: Place, way: Way) -> None:
    """Whatever the way, what is executed at once is executed for the caller's tenant."""
    for letter in "ab":
        label = new_label()
        with publishing_for(Tenant(TENANTS[letter])):
            way.publish(place.app, label)
            assert current_tenant() == Tenant(TENANTS[letter])
        assert current_tenant() is None
        sights = place.board.read(label)
        assert letters(sights) == {letter}
        assert tuple(labels(sights)) == way.labels


@pytest.mark.parametrize("name", ["look", "look_unbound", "look_free"])
def test_direct_call_runs_for_its_caller(place: Place, name: str) -> None:
    """Called like a function, a task works for the tenant in whose scope it is called."""
    label = new_label()
    with publishing_for(Tenant(TENANTS["b"])):
        place.app.tasks[name](label=label)
    assert letters(place.board.read(label)) == {"b"}


@pytest.mark.parametrize("name", ["look", "look_bound", "look_unbound"])
def test_call_without_tenant_is_refused(place: Place, name: str) -> None:
    """Neither called nor applied does a tenant's task run where there is no tenant."""
    label = new_label()
    task = place.app.tasks[name]
    with pytest.raises(MissingTenantError, match=f"task '{name}' has no tenant"):
        task(label=label)
    with pytest.raises(MissingTenantError, match=f"task '{name}' has no tenant"):
        task.apply(kwargs={"label": label}, throw=True)
    assert place.board.read(label) == []


def test_tenant_free_task_is_called_without_tenant(place: Place) -> None:
    """A tenant-free task runs wherever it is called, here for nobody."""
    label = new_label()
    place.app.tasks["look_free"](label=label)
    place.app.tasks["look_free"].apply(kwargs={"label": label})
    assert [sight.letter for sight in place.board.read(label)] == ["-", "-"]


def test_session_outside_of_tasks_is_refused() -> None:
    """get_db_session() is a task's: elsewhere it has no tenant to go by, whatever is published."""
    with (
        publishing_for(Tenant(TENANTS["a"])),
        pytest.raises(MissingTenantError, match="use tenant_scope"),
        get_db_session(),
    ):
        pytest.fail("a session was opened")


def test_scopes_nest_and_end_with_an_exception() -> None:
    """publishing_for() brings back what was before it, also when the block raises."""
    with publishing_for(Tenant(TENANTS["a"])):
        with pytest.raises(ZeroDivisionError), publishing_for(Tenant(TENANTS["b"])):
            raise ZeroDivisionError
        assert current_tenant() == Tenant(TENANTS["a"])
        with publishing_for(None):
            assert current_tenant() is None
    assert current_tenant() is None
