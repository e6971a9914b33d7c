#!/bin/sh
# Usage: docker/worker.sh [OPTIONS OF celery worker]
#
# Runs a worker with the settings of the environment, or with the defaults below. The shell becomes
# Celery's process, so that signals reach it: TERM ends it when its tasks are done, QUIT at once.
#
# CELERY_WORKER_LOG_FORMAT=json logs each event as a line of JSON. CELERY_WORKER_METRICS_PORT answers
# Prometheus there, on CELERY_WORKER_METRICS_ADDRESS. ENABLE_FLOWER=yes starts Flower next to the
# worker, on FLOWER_PORT; it ends with the worker.
set -eu

: "${CELERY_APP:=assay.worker}"
: "${CELERY_WORKER_QUEUES:=celery,maintenance}"
: "${CELERY_WORKER_CONCURRENCY:=8}"
: "${CELERY_WORKER_PREFETCH_MULTIPLIER:=4}"
: "${CELERY_WORKER_MAX_TASKS_PER_CHILD:=1000}"
: "${CELERY_WORKER_LOGLEVEL:=INFO}"
: "${CELERY_WORKER_OPTS=--without-heartbeat --without-gossip}"
: "${ENABLE_FLOWER:=no}"
: "${FLOWER_ADDRESS:=127.0.0.1}"
: "${FLOWER_PORT:=5555}"

if [ "$ENABLE_FLOWER" = yes ]; then
    worker=$$
    (
        celery --app "$CELERY_APP" flower --address="$FLOWER_ADDRESS" --port="$FLOWER_PORT" &
        flower=$!
        trap '' INT
        while kill -0 "$worker" 2>/dev/null && kill -0 "$flower" 2>/dev/null; do sleep 1; done
        kill "$flower" 2>/dev/null || :
    ) &
fi

if [ -n "${CELERY_WORKER_METRICS_PORT:-}" ] && [ -z "${PROMETHEUS_MULTIPROC_DIR:-}" ]; then
    # Where the processes of the pool leave their numbers, for this worker alone.
    PROMETHEUS_MULTIPROC_DIR=$(mktemp -d)
    export PROMETHEUS_MULTIPROC_DIR
fi

# shellcheck disable=SC2086 # the options are several words
exec celery --app "$CELERY_APP" worker \
    --queues="$CELERY_WORKER_QUEUES" \
    --concurrency="$CELERY_WORKER_CONCURRENCY" \
    --prefetch-multiplier="$CELERY_WORKER_PREFETCH_MULTIPLIER" \
    --max-tasks-per-child="$CELERY_WORKER_MAX_TASKS_PER_CHILD" \
    --loglevel="$CELERY_WORKER_LOGLEVEL" \
    $CELERY_WORKER_OPTS "$@"
