-- Puts executions of a worker back to the front of the queue, and notes why. Returns how many of them still were executions.
-- keys: queue, urgent, suspects, wip, held
-- args: name, why, members...
-- uses: requeue, past
-- flags: allow-oom

local count = 0
for _, member in ipairs(members) do
  if redis.call("ZSCORE", wip, member) then note_attempt(member, name, "put back", why) end
  if requeue(member) then count = count + 1 end
end
return count
