-- Puts jobs into the queues.
-- needs: queue, urgent, suspects
-- constants: DEATHS_MAX, RQ_QUEUES, JOB, JOB_FRONT, SKIPPED_MAX

-- Suspects go to a queue of their own. Poison goes to the normal queue: any worker ends it, and none runs it.
local function place(id, deaths, push)
  local count = tonumber(deaths or 0)
  if count > 0 and count < DEATHS_MAX then
    redis.call("SADD", RQ_QUEUES, suspects)
    redis.call(push, suspects, id)
  elseif count == 0 and redis.call("HGET", JOB .. id, JOB_FRONT) == "1" then
    redis.call(push, urgent, id)
  else
    redis.call(push, queue, id)
  end
end

-- Moves urgent jobs that nobody takes in time to the front of the normal queue, in their order.
local function overflow()
  for _ = 1, SKIPPED_MAX do
    if not redis.call("LMOVE", urgent, queue, "RIGHT", "LEFT") then break end
  end
end
