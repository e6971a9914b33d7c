"""Executing one test: ask the application, judge what it answers."""

from assay.config import EndpointPolicy
from assay.exceptions import EndpointError, JudgingError
from assay.models import Verdict
from assay.services.endpoints import ask, storable
from assay.services.judging import is_right
from assay.services.runs import Outcome, Work


def execute(work: Work, policy: EndpointPolicy) -> Outcome:
    """Return what comes of a test; an error is one that kept it from being executed or judged."""
    try:
        answer = ask(work.url, work.prompt, timeout=work.timeout_seconds, policy=policy)
    except EndpointError as error:
        return Outcome(Verdict.ERROR, received=error.received, error=storable(str(error)))
    received = storable(answer.text)
    try:
        right = is_right(work.metric, work.expected, answer.text)
    except JudgingError as error:
        return Outcome(
            Verdict.ERROR,
            received=received,
            error=storable(str(error)),
            duration_ms=answer.duration_ms,
        )
    return Outcome(
        Verdict.PASS if right else Verdict.FAIL, received=received, duration_ms=answer.duration_ms
    )
