-- Puts jobs into the queues.
-- needs: queue, suspects
-- constants: DEATHS_MAX, RQ_QUEUES

-- Suspects go to a queue of their own. Poison goes to the normal queue: any worker ends it, and none runs it.
local function place(id, deaths, push)
  local count = tonumber(deaths or 0)
  if count > 0 and count < DEATHS_MAX then
    redis.call("SADD", RQ_QUEUES, suspects)
    redis.call(push, suspects, id)
  else
    redis.call(push, queue, id)
  end
end

