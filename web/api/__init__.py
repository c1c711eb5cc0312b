"""Answers to clients' calls, one file for each kind of question.

intake, submit         a new request: its body or query is checked, and it is handed to web.flow.accept
wait, events, pieces   clients that wait: long polls, event streams, and readers of large answers
poll, trail            a request or a task: read, stream, cancel, where it is
recall                 the same from the history, on threads of its own
views, rows            a request as JSON, records as CSV or NDJSON
overview, health       sources and regions; liveness and readiness
openapi, schemas       the interface for programs
problem_types, manual  what each problem means; the interface as pages
"""
