"""The region's Redis, and the Lua that changes it (``lua/``), in the order in which a job passes.

script, clock     how scripts are loaded and sent; the region's time, which does not jump
claim             jobs are claimed, ended, tried again and put back
shared_fetch      tasks that ask the same question share one fetch
turn, breaker     when a task may fetch from its host; hosts in trouble are left alone
retry             whether a failure is tried again, and when
waits             tells people which tasks wait, and for what
outbox, home      results on their way to the hub
reaper            puts the jobs of dead worker processes back into the queue
"""
