"""One worker process.

__main__, entry    how it begins: command line, settings
worker             its loop: claims, renews its lease, looks at cancels
thread_pool        its threads, and how they finish jobs in batches
executor           one job on a thread
meter              counts what it does, in memory that its pool reads
stop               how it ends
fork_server        a process that others are forked from
"""
