"""What is measured. ``nearfetch bench`` measures the path, ``python -m scripts.bench.parse`` parsing alone.

run       rounds → rows → contenders in turn: ours, the peer's, the bare loops
rows      what is asked for: its address, its records, the source that describes it
page_server   one process that answers all of them
ours, peer_stack, floor   the three; peer is the peer's own code, in an environment of its own
load      the clients, the same for ours and the peer's: many at once, or one after another
usage     CPU time and memory of processes
figures   medians, spreads, ratios, and whether the comparison is fair
report    the table, and the same as JSON
bridge_alone, in_flight, waiters, backlog   figures of ours alone (extra), each with a stack of its own
"""
