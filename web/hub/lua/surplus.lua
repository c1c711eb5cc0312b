-- Deletes results that regions brought and that nobody waits for, among some keys of a SCAN.
-- Returns {the next cursor, region, bytes deleted, …}. A result that comes after that of another region, which was asked, too,
-- is deleted and not counted.
-- `results` is a pattern of SCAN, `of_a_region` a Lua pattern with region and task; `ledger`: how a ledger's key begins.
-- args: cursor, count, results, of_a_region, ledger, bytes_max
-- uses: asked
-- constants: HUB
-- flags: allow-oom

local found = redis.call("SCAN", cursor, "MATCH", results, "COUNT", count)
local gone, answer = {}, {found[1]}
for _, key in ipairs(found[2]) do
  local region, task = string.match(key, of_a_region)
  if region and region ~= HUB then
    -- The last ten bits of a request's id are zero; those of its tasks' ids are their numbers (web.hub.ids).
    local said = redis.pcall("HGET", ledger .. string.sub(task, 1, -3) .. "00", "t:" .. task)
    local state, asked = string.match(type(said) == "string" and said or "", "^(%l+)|(.*)$")
    local size = redis.call("MEMORY", "USAGE", key)
    local is_asked, is_late = asked == region, false
    if asked and not is_asked then
      local out, others = parted(asked)
      is_asked, is_late = has(out, region), has(others, region)
    end
    if is_asked and state ~= "queued" and state ~= "running" then
      local begins = string.sub(key, 1, #key - #task - #region - 1)
      is_asked = redis.call("EXISTS", begins .. HUB .. ":" .. task, begins .. region .. "+:" .. task) == 0
    end
    if is_late then redis.call("UNLINK", key)
    elseif not is_asked or size > tonumber(bytes_max) then
      redis.call("UNLINK", key)
      gone[region] = (gone[region] or 0) + size
    end
  end
end
for region, size in pairs(gone) do
  answer[#answer + 1] = region
  answer[#answer + 1] = size
end
return answer
