"""``nearfetch chaos``: faults from a seeded plan, under a load, with every id compared by a ledger outside of the stack.

plan      the faults, posts and letters, made from the seed alone
points    every call that may succeed and yet look failed to its caller
stack     a whole stack of its own, with a link in front of each server
faults    how each kind of fault is caused, and ended (clocks, slow_disk)
load      the clients
letters   unreadable messages
hostile   clients, and a region's user, that try to do harm
scaling   what --scale adds
history   what clients and faults recorded during the run
archive   the list of finished requests at the end
ledger    compares what was promised with what came, with figures of recovery, and makes a verdict
report    the output
"""
