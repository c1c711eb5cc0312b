-- Reads a request, and its results after a cursor: bytes_max of them at most. The first one may have first_max.
-- Returns {ledger, [entry, frame of the result, task, region in its key, bytes of its JSON, …], 1 where more results
-- wait, the last entry that there is}. A request that is not accepted has no results. With `how` (how a client reads
-- them) it notes when each task was first read.
-- Of a request's webhook, what may be shown stands behind the ledger's own fields, with "webhook." before each name.
-- `result_format` makes the key of a result from a region and a task.
-- keys: ledger, events, trail
-- args: after, bytes_max, first_max, result_format, how
-- uses: now, webhook_told
-- flags: allow-oom

local state, expires, webhook = unpack(redis.call("HMGET", ledger, "state", "expires", "webhook"))
local request, found, tasks, size, more, last = redis.call("HGETALL", ledger), {}, {}, 0, 0, after
if state ~= "accepted" then return {request, found, more, last} end
if webhook then tell_webhook(webhook, request) end
local entries = redis.call("XRANGE", events, "(" .. after, "+")
if #entries > 0 then last = entries[#entries][1] end
for _, entry in ipairs(entries) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  size = size + fields.b
  if size > tonumber(#tasks > 0 and bytes_max or first_max) then
    more = 1
    break
  end
  tasks[#tasks + 1] = fields.t
  local frame = redis.pcall("GET", string.format(result_format, fields.r, fields.t))
  for _, part in ipairs({entry[1], type(frame) == "string" and frame, fields.t, fields.r, fields.b}) do
    found[#found + 1] = part
  end
end
if how ~= "" and #tasks > 0 then
  local said = now_ms() .. "|" .. how
  for _, task in ipairs(tasks) do redis.call("HSETNX", trail, "d:" .. task, said) end
  redis.call("PEXPIREAT", trail, expires)
end
return {request, found, more, last}
