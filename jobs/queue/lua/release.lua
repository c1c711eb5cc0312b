-- Ends executions.
-- needs: wip, held
-- uses: leave
-- constants: EXECUTION, EXECUTION_TURN, EXECUTIONS

-- Ends an execution everywhere; gives when it began, in seconds. Nothing when RQ's registry of started jobs no longer
-- holds it.
local function release(id, execution)
  local member = id .. ":" .. execution
  if redis.call("ZREM", wip, member) == 0 then return nil end
  local began, host = unpack(redis.call("HMGET", EXECUTION .. member, "created_at", EXECUTION_TURN))
  redis.call("DEL", EXECUTION .. member)
  redis.call("ZREM", EXECUTIONS .. id, execution)
  redis.call("SREM", held, member)
  if host and host ~= "" then leave(host, id) end
  return began or now
end

