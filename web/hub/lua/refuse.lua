-- Refuses a request as a whole: always, or with lapsed_only "1" only if the lease of its accept is over. Returns 1 when
-- it is refused.
-- keys: ledger, due, accepting, events, archive, listed
-- args: request, lapsed_only, archives, tasks (task)
-- rows: task (id, open)
-- uses: now, asked, use, webhook
-- constants: OPEN_OF
-- flags: allow-oom

local now = now_ms()
local wanted = {"state", "lease", "repeated", "used", "tenant", "webhook"}
local state, lease_ends, repeated, used, tenant, webhook = unpack(redis.call("HMGET", ledger, unpack(wanted)))
if lapsed_only == "1" and (state ~= "accepting" or tonumber(lease_ends) > now) then
  if state ~= "accepting" then redis.call("ZREM", accepting, request) end
  return 0
end
if state then redis.call("HSET", ledger, "state", "refused") end
redis.call("ZREM", accepting, request)
redis.call("ZREM", listed, (tenant or "") .. "/" .. request)
-- The accept took effect after its caller had given up: if the history already has the request, it is removed there, too.
if state == "accepted" and archives == "1" then redis.call("ZADD", archive, now, request) end
local open = 0
for _, task in ipairs(tasks) do
  local status, asked = string.match(redis.call("HGET", ledger, "t:" .. task.id) or "", "^(%l*)|(.*)$")
  for region in string.gmatch(asked or "", "[^,|]+") do redis.call("ZREM", OPEN_OF .. region, request .. "/" .. task.id) end
  if status == "queued" or status == "running" then open = open + 1 end
  redis.call("ZREM", due, request .. "/" .. task.id)
  redis.call("ZREM", task.open, request .. "/" .. task.id)
end
if used and state ~= "refused" then free(used, open, 0, 0) end
redis.call("DEL", events)
if webhook then forget_webhook(webhook, request) end
if repeated and redis.call("HGET", repeated, "request") == request then redis.call("DEL", repeated) end
return 1
