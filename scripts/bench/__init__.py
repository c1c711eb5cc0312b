"""The benchmarks. ``nearfetch bench`` measures the whole path, ``python -m scripts.bench.parse`` only the parsing.

run       measures in rounds: each row, and in it each contender in turn (ours, the peer's, the bare loops)
rows      the pages of each row, their records, and the sources that describe them
page_server   one process that serves all pages
ours, peer_stack, floor   the three contenders; peer is the peer's own code, which runs in a virtual environment of its own
load      the clients, the same for ours and the peer's: many at once, or one after another
usage     CPU time and memory of processes
figures   medians, spreads, ratios, and whether the comparison is fair
report    the table, and the same as JSON
bridge_alone, in_flight, waiters, backlog, neighbour, tenants, interactive, ocean, idle, capacity, key_cost, metrics_cost
          measure Nearfetch alone (extra), each with a stack of its own
geo       pages from across an ocean (geo_pages, geo_site, geo_report, geo_picture)
"""
