"""``nearfetch chaos``: faults from a seeded plan under a load, every id compared with a ledger kept outside.

plan    which faults and which posts, by the seed alone          faults, points   how each fault is done
stack   a whole stack of its own, a link in front of each server   load             clients, and what they saw (history)
ledger  compares what was promised with what came                  report           what is printed
"""
