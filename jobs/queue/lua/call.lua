-- Calls the tasks that wait for hosts and whose time has come. Returns in how many ms to call again; -1 if none waits.
-- keys: queue, urgent, suspects, scheduled
-- uses: host_queue
-- flags: allow-oom

call_due()
return next_call()
