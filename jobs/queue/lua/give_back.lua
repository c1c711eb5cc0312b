-- Puts executions back to the front of the queue. Returns how many of them still were executions.
-- keys: queue, urgent, suspects, wip, held
-- args: members...
-- uses: requeue
-- flags: allow-oom

local count = 0
for _, member in ipairs(members) do
  if requeue(member) then count = count + 1 end
end
return count
