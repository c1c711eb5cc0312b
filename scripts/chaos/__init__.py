"""``nearfetch chaos``: faults from a seeded plan under a load, every id compared with a ledger kept outside.

plan    which faults, posts and letters, by the seed alone         faults, points   how each fault is done
stack   a whole stack of its own, a link in front of each server   load, letters    clients, unreadable messages (history)
ledger  compares what was promised with what came, with figures    archive          the list of finished requests at the end
        of recovery, into a verdict                                report           what is printed
scaling what --scale does besides                                  hostile         clients and a region that mean harm
"""
