-- What is different for a task when several regions were asked for it.
-- needs: ledger, trail, request
-- uses: asked
-- constants: OPEN_OF, RESULT_OF

-- The regions of a task, when one of them reports: `out` and `others`; whether it `may_end` the task; whether another
-- one is out, so that its failure `waits`. What the hub itself ends by a cancel or at its deadline waits for nobody.
local function regions_of(asked, region, status, is_of_hub)
  local out, others = parted(asked)
  local is_whole = is_of_hub and (status == "cancelled" or status == "expired")
  local left = without(region, out)
  return {
    out = out, others = others, is_whole = is_whole, left = left, waits = left ~= "" and not is_whole,
    may_end = is_whole or has(out, region), was_asked = has(out .. "," .. others, region),
  }
end

-- Notes that a region has failed while another one is out. Returns what the ledger says of the task now.
-- `failure`: where the result is, kept in case that the other one says nothing, or "".
local function note_failure(task, region, before, regions, failure, hops, expires)
  local said = before .. "|" .. regions.left .. "|" .. without("", regions.others, region)
  redis.call("HSET", ledger, "t:" .. task, said)
  if failure ~= "" then redis.call("HSET", ledger, "f:" .. task, failure) end
  redis.call("ZREM", OPEN_OF .. region, request .. "/" .. task)
  if hops ~= "" then
    redis.call("HSET", trail, task .. "|" .. region, hops)
    redis.call("PEXPIREAT", trail, expires)
  end
  return said
end

-- Forgets what other regions have of a task that ends by one. Returns those regions.
local function leave_others(task, region, regions)
  local rest = without(region, regions.out, regions.others)
  for one in string.gmatch(rest, "[^,]+") do
    redis.call("ZREM", OPEN_OF .. one, request .. "/" .. task)
    redis.call("UNLINK", string.format(RESULT_OF, one, task))
  end
  return rest
end
