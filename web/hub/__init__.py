"""The hub's Redis.

redis                   its client, and whether it can take requests
ledger, scripts, ids    requests and tasks, the scripts that change them, their ids
frame, reuse            results: read, made, and used again for ``max_age``
entry                   checks what regions append to their out streams
region, runs, verdict   what is known of regions, of a source's runs, and of its health
reach                   tells a host's failure from the region's own
"""
