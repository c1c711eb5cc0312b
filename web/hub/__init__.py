"""The hub's Redis: what is kept there, in the order in which a task meets it. Scripts are in ``lua/``.

redis                      its client, and whether it can take requests
keys, sessions             API keys, and the console's sessions
ids, new_request           ids of requests and tasks; a checked request
ledger, scripts            writes and reads requests; the scripts that change them
reuse, takeover            older results for ``max_age``; tasks that a standby is asked for
entry, settlement, frame   checks what regions append; the end of a task; its result
view                       a request as it was read
webhooks                   the webhook of a request
region, events             what regions have reported, and what happened to them
runs, reach, verdict       a source's runs; whether a host or the region failed; the source's health
traffic, recent, tally     sums of bytes; the last minutes and the last day; what this gateway has done
faults, gateways           the faults by name; which gateways live
"""
