"""Chords end, whatever becomes of their members."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery, chord, group
from celery.exceptions import ChordError
from tests.fixtures.recorded_site import ALICE, Site, new_site
from tests.fixtures.task_board import new_label, wait_until
from tests.fixtures.worlds import A

from tenantry import Tenant
from tenantry.celery import bound_chords, publishing_for
from tenantry.testing import Server


@pytest.fixture(scope="module")
def site(tenantry_server: Server, tenantry_template: str) -> Iterator[Site]:
    """Return a site whose chords are polled five times, with a worker."""
    with new_site(tenantry_server, tenantry_template) as made:
        bound_chords(made.app, max_retries=5, interval=0.2, join_timeout=2)
        with made.worker():
            yield made


def launch_chord(site: Site, *members: Any, label: str) -> Any:
    """Publish a chord of the members for Alice; its body leaves the label."""
    with publishing_for(Tenant(A, ALICE.id)):
        return chord(group(members), site.app.tasks["collect"].s(label)).apply_async()


def test_chord_whose_members_succeed_has_its_body_called(site: Site) -> None:
    """The bounds leave a chord that works alone."""
    label, mark = new_label(), site.app.tasks["mark"]
    assert launch_chord(site, mark.si("x"), mark.si("y"), label=label).get(timeout=90) == 2
    assert site.count(label) == 1


def test_chord_with_a_failing_member_ends_in_an_error(site: Site) -> None:
    """The body is never called and its result says which member failed."""
    label = new_label()
    members = (site.app.tasks["mark"].si("x"), site.app.tasks["fail"].si("member"))
    result = launch_chord(site, *members, label=label)
    error = result.get(timeout=90, propagate=False)
    assert isinstance(error, ChordError)
    assert "ValueError('member')" in str(error)
    assert site.count(label) == 0


def test_chord_with_a_member_that_never_ends_is_given_up(site: Site) -> None:
    """After as many polls as were allowed the body fails; nothing polls the chord any more."""
    label = new_label()
    never = site.app.tasks["mark"].signature(("never",), immutable=True, options={"queue": "void"})
    result = launch_chord(site, site.app.tasks["mark"].si("x"), never, label=label)
    with pytest.raises(ChordError, match="could not be retried"):
        result.get(timeout=90)
    wait_until(lambda: site.messages() == 1, 90, lambda: f"{site.messages()} messages wait")
    assert site.count(label) == 0


@pytest.mark.parametrize("finalized", [False, True])
def test_bounds_reach_the_task_that_polls(finalized: bool) -> None:
    """Called before or after the application is finalized, what Celery reads is set."""
    app = Celery("chords", set_as_current=False)
    if finalized:
        app.finalize()
    bound_chords(
        app, max_retries=7, interval=0.5, join_timeout=3, result_expires=timedelta(hours=2)
    )
    unlock = app.tasks["celery.chord_unlock"]
    assert (unlock.max_retries, unlock.default_retry_delay) == (7, 0.5)
    assert app.conf.result_chord_join_timeout == 3
    assert app.conf.result_expires == timedelta(hours=2)
    app.close()
