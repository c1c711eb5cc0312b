"""Answers to clients' calls, one file for each kind of question.

intake, submit, query      a new request: body, query and Prefer are checked, and it is handed to web.flow.accept
repeat                     a post whose Idempotency-Key came before
wait, timers               reads for all clients that wait
long_poll, events, pieces  what such a client gets: one answer, an event stream, or a large answer piece by piece
poll, trail                a request or a task: read, stream, cancel, where it is
recall                     the same from the history, on threads of its own, and the list of requests
views, rows                a request as JSON, records as CSV or NDJSON
overview                   sources and regions (source_view, region_view); region_stream: regions as they change
webhooks                   a tenant's webhooks
faults, health, metrics    what is wrong now; liveness and readiness; for Prometheus
openapi, schemas           the interface for programs
problem_types, manual      what each problem means; the interface as pages
"""
