-- Forgets requests that were to be archived. One that the history has (is_put "1") and that was refused meanwhile
-- stays: it is to be removed there. The history lists them from now on.
-- keys: archive, listed
-- args: requests (request)
-- rows: request (id, is_put, ledger)
-- uses: now
-- flags: allow-oom

local now = now_ms()
for _, request in ipairs(requests) do
  if request.is_put == "1" and redis.call("HGET", request.ledger, "state") == "refused" then
    redis.call("ZADD", archive, now, request.id)
  else
    redis.call("ZREM", archive, request.id)
    redis.call("ZREM", listed, (redis.call("HGET", request.ledger, "tenant") or "") .. "/" .. request.id)
  end
end
return 1
