-- Deletes delivered entries from the outbox. Returns the bytes of their frames.
-- keys: outbox, outbox_bytes
-- args: entries (entry)
-- rows: entry (id, size_bytes)
-- flags: allow-oom

local gone = 0
for _, entry in ipairs(entries) do
  if redis.call("XDEL", outbox, entry.id) == 1 then gone = gone + tonumber(entry.size_bytes) end
end
if gone > 0 then redis.call("DECRBY", outbox_bytes, gone) end
return gone
