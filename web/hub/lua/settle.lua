-- Ends tasks of one request, each once: the only way to end a task. A region's result is moved to a key that the region
-- can't write. A result that nobody waits for is deleted.
-- Returns for each task SETTLED; LAST, settled as the last one of its request; NOTHING to do; LATE, succeeded after its
-- deadline; TOO_LARGE, past the request's bytes; NO_FRAME, there is no such result, or it is larger than was said;
-- NO_ROOM, past what its region may hold. The last four change nothing. If several regions were asked: OUT, this one has
-- failed and another one is out; and SETTLED or LAST as a text with the deadline, how many ms are left and which regions are
-- still out.
-- Of a task: `region` is the one that says so, `size_bytes` are those of the JSON, `frame` is made by the hub or "",
-- `from_region` is the region in the key of the result that counts, `trail` may be "", `is_latest` is "1" where it may
-- answer for other tasks, `held_max` bytes may be held for its region (0: no limit). Keys: `open` tasks of the region,
-- the hub's `own` result, the region's as it `came` and as it is `kept`, the bytes that are `held` for the region.
-- `is_told` is "1" where the caller tells the one client that waits; others may wait for a request with an Idempotency-Key.
-- keys: ledger, events, due, archive, trail, listed
-- args: request, request_bytes_max, archives, head_bytes_max, is_told, tasks (task)
-- rows: task (id, region, status, finished_ms, size_bytes, frame, from_region, trail, is_latest, held_max, open, own,
--   came, kept, held)
-- uses: now, several, use, webhook
-- constants: SETTLED, NOTHING, LATE, TOO_LARGE, LAST, NO_FRAME, NO_ROOM, OUT, WAKE, MORE
-- flags: allow-oom

local wanted = {"state", "deadline", "expires", "bytes", "total"}
for _, task in ipairs(tasks) do
  wanted[#wanted + 1] = "t:" .. task.id
  wanted[#wanted + 1] = "l:" .. task.id
end
local found = redis.call("HMGET", ledger, unpack(wanted))
local state, deadline, expires, bytes, total = unpack(found, 1, 5)
local answers, fields, ended, counts, settled, grown, last = {}, {}, {}, {}, 0, 0, 0
local failed, still_out = {}, {}  -- of tasks for which several regions were asked

-- Why a task may not end like this; nothing when it may. `regions`: if several were asked.
local function hindrance(before, regions, task)
  if state == "refused" or (regions and not regions.may_end) then return NOTHING end
  if ended[task.id] or (before ~= "queued" and before ~= "running") then return NOTHING end
  if task.status ~= "succeeded" then return regions and regions.waits and OUT or nil end
  if tonumber(task.finished_ms) > tonumber(deadline) then return LATE end
  if bytes + grown + task.size_bytes > tonumber(request_bytes_max) then return TOO_LARGE end
end

-- Counts bytes that are held for a task's region until they expire; whether there is room.
local function hold(task, length)
  local all, most = redis.call("HINCRBY", task.held, "all", length), tonumber(task.held_max)
  if most > 0 and all > most then
    redis.call("HINCRBY", task.held, "all", -length)
    return false
  end
  redis.call("HINCRBY", task.held, math.floor(expires / 60000) + 1, length)
  return true
end

-- Moves the region's result to the hub's own key; why it may not, or nothing.
local function take(task)
  local length = redis.pcall("STRLEN", task.came)
  if type(length) ~= "number" or length == 0 or length > task.size_bytes + head_bytes_max then return NO_FRAME end
  if not hold(task, length) then return NO_ROOM end
  redis.call("RENAME", task.came, task.kept)
  redis.call("PEXPIREAT", task.kept, expires)
end

-- A task that no region has ended by its deadline ends by the failure that one has sent, if one has; whether it does.
local function take_failure(task)
  local failure = task.status == "expired" and redis.call("HGET", ledger, "f:" .. task.id)
  if not failure then return false end
  task.status, task.region, task.from_region, task.size_bytes = string.match(failure, "^(%S+) (%S+) (%S+) (%S+)$")
  task.frame = ""
  return true
end

-- Keeps a region's failure while another region is out. Returns what the ledger says of the task now.
local function keep_failure(task, before, regions)
  local is_kept = task.status == "failed"
  if is_kept and task.frame ~= "" then redis.call("SET", task.own, task.frame, "PXAT", expires)
  elseif is_kept then is_kept = not take(task) end
  redis.call("UNLINK", task.came)
  local failure = table.concat({task.status, task.region, task.from_region, task.size_bytes}, " ")
  return note_failure(task.id, task.region, before, regions, is_kept and failure or "", task.trail, expires)
end

for number, task in ipairs(tasks) do
  local said, question = failed[task.id] or found[2 * number + 4], found[2 * number + 5]
  local answer, regions, is_kept, before = NOTHING, nil, false, nil
  if said then
    local asked
    before, asked = string.match(said, "^(%l+)|(.*)$")
    if asked ~= task.region then regions = regions_of(asked, task.region, task.status, task.frame ~= "") end
    answer = hindrance(before, regions, task)
  end
  if not answer and regions then is_kept = take_failure(task) end
  if not answer and task.frame == "" and not is_kept then answer = take(task) end
  -- A frame of the hub is counted where it has a bound: copies of results that are used again.
  if not answer and task.frame ~= "" and tonumber(task.held_max) > 0 and not hold(task, #task.frame) then answer = NO_ROOM end
  if answer and answer ~= NOTHING and regions and regions.waits then
    answer = OUT
    failed[task.id] = keep_failure(task, before, regions)
  end
  answer = answer or SETTLED
  answers[number] = answer
  if not said or answer == SETTLED then
    local member = request .. "/" .. task.id
    redis.call("ZREM", due, member)
    redis.call("ZREM", task.open, member)
  end
  if answer == SETTLED then
    ended[task.id], settled, grown, last = true, settled + 1, grown + task.size_bytes, number
    counts[task.status] = (counts[task.status] or 0) + 1
    fields[#fields + 1] = wanted[2 * number + 4]
    fields[#fields + 1] = task.status .. "|" .. task.region .. (regions and "|" .. leave_others(task.id, task.region, regions) or "")
    if regions and regions.waits then still_out[number] = regions.left end
    if task.trail ~= "" then
      redis.call("HSET", trail, task.id, task.trail)
      redis.call("PEXPIREAT", trail, expires)
    end
    if task.frame ~= "" then
      redis.call("SET", task.own, task.frame, "PXAT", expires)
      redis.call("UNLINK", task.came)
    elseif task.status == "succeeded" and task.is_latest == "1" and question then
      local latest = redis.call("GET", question)
      if not latest or tonumber(string.match(latest, "^%d+")) <= tonumber(task.finished_ms) then
        redis.call("SET", question, task.finished_ms .. " " .. task.size_bytes .. " " .. task.kept, "PXAT", expires)
      end
    end
    redis.call("XADD", events, "*", "t", task.id, "s", task.status, "r", task.from_region, "b", task.size_bytes)
  elseif answer == NOTHING and (not said or (regions and regions.was_asked) or redis.call("EXISTS", task.own, task.kept) > 0) then
    redis.call("UNLINK", task.came)
  end
end
if settled == 0 then return answers end
redis.call("HSET", ledger, unpack(fields))
redis.call("HINCRBY", ledger, "bytes", grown)
for status, count in pairs(counts) do redis.call("HINCRBY", ledger, status, count) end
local used, tenant, webhook, accepted = unpack(redis.call("HMGET", ledger, "used", "tenant", "webhook", "accepted"))
local is_done = redis.call("HINCRBY", ledger, "completed", settled) == tonumber(total)
if is_done then
  answers[last] = LAST
  local now = now_ms()
  redis.call("HSET", ledger, "done", now)
  -- A request that is still accepting will be accepted or refused a moment later.
  if archives == "1" then redis.call("ZADD", archive, state == "accepted" and now or now + 1000, request)
  else redis.call("ZREM", listed, (tenant or "") .. "/" .. request) end
  if webhook and accepted then make_due(webhook, request, ledger, accepted) end
end
if used then free(used, settled, grown, expires) end
redis.call("PEXPIREAT", events, expires)
if is_told ~= "1" or redis.call("HEXISTS", ledger, "repeated") == 1 then
  redis.call("PUBLISH", WAKE, is_done and request or request .. MORE)
end
for number, regions in pairs(still_out) do
  answers[number] = table.concat({answers[number], deadline, deadline - now_ms(), regions}, " ")
end
return answers
