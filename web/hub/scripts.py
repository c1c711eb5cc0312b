"""The scripts that change the ledger on the hub's Redis: each closes a window that separate commands would leave open.

All of them take the time from ``TIME``, run where memory is short (``allow-oom``: they free more than they take, except
``BEGIN``, which must be refused then), and use only keys made by ``regions.names``.
"""

from typing import Final

from regions.script import Script

BEGIN: Final = Script("""#!lua
-- KEYS: ledger, due, accepting. ARGV: request, lease ms, deadline ms, ttl ms, grace ms, tasks JSON, attrs JSON,
-- who accepts, 1 for the fast lane, how old (ms) and how many bytes what is there already may be, then for each task:
-- its id, its region, the key of the region's open tasks, the key of the latest success of who asks the same.
-- Returns {created, deadline, expires} in ms, then for each result that is there and not too old, by its end at least:
-- the task's number, the result's key and frame.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local deadline, expires = now + ARGV[3], now + ARGV[4]
local request, total = ARGV[1], (#ARGV - 11) / 4
local age, room, answer = tonumber(ARGV[10]), tonumber(ARGV[11]), {now, deadline, expires}
redis.call('HSET', KEYS[1], 'state', 'accepting', 'lease', now + ARGV[2], 'created', now, 'deadline', deadline,
  'expires', expires, 'total', total, 'completed', 0, 'bytes', 0, 'tasks', ARGV[6], 'attrs', ARGV[7],
  'by', ARGV[8], 'sync', ARGV[9])
for i = 12, #ARGV, 4 do
  local member = request .. '/' .. ARGV[i]
  redis.call('HSET', KEYS[1], 't:' .. ARGV[i], 'queued|' .. ARGV[i + 1], 'l:' .. ARGV[i], ARGV[i + 3])
  redis.call('ZADD', KEYS[2], deadline + ARGV[5], member)
  redis.call('ZADD', ARGV[i + 2], now, member)
  local latest = age > 0 and redis.call('GET', ARGV[i + 3])
  if latest then
    local finished, bytes, key = string.match(latest, '^(%d+) (%d+) (.+)$')
    local frame = now - finished <= age and tonumber(bytes) <= room and redis.call('GET', key)
    if frame then
      room = room - bytes
      for _, part in ipairs({(i - 12) / 4, key, frame}) do answer[#answer + 1] = part end
    end
  end
end
redis.call('PEXPIREAT', KEYS[1], expires)
redis.call('ZADD', KEYS[3], now + ARGV[2], request)
return answer
""")

ACCEPT: Final = Script("""#!lua flags=allow-oom
-- KEYS: ledger, accepting. ARGV: request. Returns 1 when the request is accepted now, 0 when its lease is gone.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'state', 'lease')
if found[1] ~= 'accepting' or tonumber(found[2]) <= now then return 0 end
redis.call('HSET', KEYS[1], 'state', 'accepted', 'accepted', now)
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
""")

REFUSE: Final = Script("""#!lua flags=allow-oom
-- KEYS: ledger, due, accepting, events, archive. ARGV: request, "lapsed" (only a request whose lease is over) or
-- "always", 1 where there is a history, then for each task: its id, the key of its region's open tasks.
-- Returns 1 when the request is refused.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'state', 'lease')
if ARGV[2] == 'lapsed' and (found[1] ~= 'accepting' or tonumber(found[2]) > now) then
  if found[1] ~= 'accepting' then redis.call('ZREM', KEYS[3], ARGV[1]) end
  return 0
end
if found[1] then redis.call('HSET', KEYS[1], 'state', 'refused') end
redis.call('ZREM', KEYS[3], ARGV[1])
-- The accept got through, after its caller had given up: what is in the history by now is taken back there, too.
if found[1] == 'accepted' and ARGV[3] == '1' then redis.call('ZADD', KEYS[5], now, ARGV[1]) end
for i = 4, #ARGV, 2 do
  local member = ARGV[1] .. '/' .. ARGV[i]
  redis.call('ZREM', KEYS[2], member)
  redis.call('ZREM', ARGV[i + 1], member)
end
redis.call('DEL', KEYS[4])
return 1
""")

# The answers of SETTLE.
SETTLED, NOTHING, LATE, TOO_LARGE, LAST, NO_FRAME, NO_ROOM = 1, 0, 2, 3, 4, 5, 6
ENDED: Final = (SETTLED, LAST)

SETTLE: Final = Script("""#!lua flags=allow-oom
-- The one way to end a task; several of a request at once.
-- KEYS: ledger, events, due, archive, trail, then for each task: the open tasks of its region, the hub's result of it, the
-- region's result as it came, the place where that is kept once it is settled, the bytes that its region holds.
-- ARGV: request, bytes a request may have, 1 where there is a history, how many bytes a result may have besides what is said,
-- then for each task: its id, region that says so, status, finished ms, bytes of the JSON, a frame made by the hub or "", the
-- region that counts as the result's, the trail or "", 1 where it may answer for other tasks, bytes its region may hold.
-- Returns for each 1 settled, 4 settled as the last one of its request, 0 nothing to do, 2 succeeded after its deadline,
-- 3 past the request's bytes, 5 there is no such result, or it is larger than was said, 6 past what its region may hold
-- (2, 3, 5, 6: nothing done). A result moves where its region can't write; one that nobody waits for goes.
local request, beside = ARGV[1], tonumber(ARGV[4])
local wanted = {'state', 'deadline', 'expires', 'bytes', 'total'}
for i = 5, #ARGV, 10 do
  wanted[#wanted + 1] = 't:' .. ARGV[i]
  wanted[#wanted + 1] = 'l:' .. ARGV[i]
end
local found = redis.call('HMGET', KEYS[1], unpack(wanted))
local state, deadline, expires, bytes, total = unpack(found, 1, 5)
local answers, fields, ended, counts, settled, grown, last = {}, {}, {}, {}, 0, 0, 0

-- 0 where there is nothing to end, 2 and 3 where it may not end so, else nothing.
local function hindrance(said, task, region, status, finished, size)
  local before, asked = string.match(said, '^(%l+)|(.*)$')
  if state == 'refused' or asked ~= region then return 0 end
  if ended[task] or (before ~= 'queued' and before ~= 'running') then return 0 end
  if status ~= 'succeeded' then return nil end
  if tonumber(finished) > tonumber(deadline) then return 2 end
  if bytes + grown + size > tonumber(ARGV[2]) then return 3 end
end

-- Takes the region's result into the hub's own; 5 and 6 where it may not be, else nothing.
local function take(came, kept, held, size, most)
  local length = redis.pcall('STRLEN', came)
  if type(length) ~= 'number' or length == 0 or length > size + beside then return 5 end
  local all = redis.call('HINCRBY', held, 'all', length)
  if tonumber(most) > 0 and all > tonumber(most) then
    redis.call('HINCRBY', held, 'all', -length)
    return 6
  end
  redis.call('HINCRBY', held, math.floor(expires / 60000) + 1, length)
  redis.call('RENAME', came, kept)
  redis.call('PEXPIREAT', kept, expires)
end

for n = 1, (#ARGV - 4) / 10 do
  local task, region, status, finished, size, frame, counts_as, trail, is_latest, most = unpack(ARGV, 10 * n - 5, 10 * n + 4)
  local open, own, came, kept, held = unpack(KEYS, 5 * n + 1, 5 * n + 5)
  local member, said, question = request .. '/' .. task, found[2 * n + 4], found[2 * n + 5]
  answers[n] = not said and 0 or hindrance(said, task, region, status, finished, size)
    or (frame == '' and take(came, kept, held, size, most)) or 1
  if not said or answers[n] == 1 then
    redis.call('ZREM', KEYS[3], member)
    redis.call('ZREM', open, member)
  end
  if answers[n] == 1 then
    ended[task], settled, grown, last = true, settled + 1, grown + size, n
    counts[status] = (counts[status] or 0) + 1
    fields[#fields + 1] = 't:' .. task
    fields[#fields + 1] = status .. '|' .. region
    if trail ~= '' then
      redis.call('HSET', KEYS[5], task, trail)
      redis.call('PEXPIREAT', KEYS[5], expires)
    end
    if frame ~= '' then
      redis.call('SET', own, frame, 'PXAT', expires)
      redis.call('UNLINK', came)
    elseif status == 'succeeded' and is_latest == '1' and question then
      local latest = redis.call('GET', question)
      if not latest or tonumber(string.match(latest, '^%d+')) <= tonumber(finished) then
        redis.call('SET', question, finished .. ' ' .. size .. ' ' .. kept, 'PXAT', expires)
      end
    end
    redis.call('XADD', KEYS[2], '*', 't', task, 's', status, 'r', counts_as, 'b', size)
  elseif answers[n] == 0 and (not said or redis.call('EXISTS', own, kept) > 0) then
    redis.call('UNLINK', came)
  end
end
if settled == 0 then return answers end
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('HINCRBY', KEYS[1], 'bytes', grown)
for status, count in pairs(counts) do redis.call('HINCRBY', KEYS[1], status, count) end
local is_done = redis.call('HINCRBY', KEYS[1], 'completed', settled) == tonumber(total)
if is_done then
  answers[last] = 4
  local t = redis.call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  redis.call('HSET', KEYS[1], 'done', now)
  -- A request that is still accepting is one or is none a moment later.
  if ARGV[3] == '1' then redis.call('ZADD', KEYS[4], state == 'accepted' and now or now + 1000, request) end
end
redis.call('PEXPIREAT', KEYS[2], expires)
redis.call('PUBLISH', 'nf:wake', is_done and request or request .. '+')
return answers
""")

RUNNING: Final = Script("""#!lua flags=allow-oom
-- KEYS: a ledger and a trail for each task. ARGV: the region, then for each task: its id, its trail or "".
-- Marks what was queued there as running.
for i = 1, #KEYS, 2 do
  local task, field = ARGV[i + 1], 't:' .. ARGV[i + 1]
  local found = redis.call('HMGET', KEYS[i], field, 'expires')
  if found[1] == 'queued|' .. ARGV[1] then redis.call('HSET', KEYS[i], field, 'running|' .. ARGV[1]) end
  if ARGV[i + 2] ~= '' and (found[1] == 'queued|' .. ARGV[1] or found[1] == 'running|' .. ARGV[1]) then
    redis.call('HSET', KEYS[i + 1], task, ARGV[i + 2])
    redis.call('PEXPIREAT', KEYS[i + 1], found[2])
  end
end
return #KEYS
""")

OVERDUE: Final = Script("""#!lua flags=allow-oom
-- KEYS: accepting, due. ARGV: lease ms, most of each. Returns the time in ms, the requests whose accept has lapsed and the
-- tasks, as REQUEST/TASK, that are past their deadline and grace. Nobody else gets them until the lease is over.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function take(key)
  local found = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, ARGV[2])
  for _, member in ipairs(found) do redis.call('ZADD', key, now + ARGV[1], member) end
  return found
end
return {now, take(KEYS[1]), take(KEYS[2])}
""")

LEASE: Final = Script("""#!lua flags=allow-oom
-- KEYS: archive. ARGV: lease ms, most. Returns finished requests that nobody archives; they come again after the lease.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
for _, request in ipairs(due) do redis.call('ZADD', KEYS[1], now + ARGV[1], request) end
return due
""")

ARCHIVED: Final = Script("""#!lua flags=allow-oom
-- KEYS: archive, then ledgers. ARGV: for each its request, and 1 where the history has it now. Forgets them, but for
-- what was refused meanwhile: that is to be taken back.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 2, #KEYS do
  local request, put = ARGV[2 * i - 3], ARGV[2 * i - 2]
  if put == '1' and redis.call('HGET', KEYS[i], 'state') == 'refused' then
    redis.call('ZADD', KEYS[1], now, request)
  else
    redis.call('ZREM', KEYS[1], request)
  end
end
return 1
""")

_READ: Final = """
-- KEYS: ledger, events, trail. ARGV: the cursor after which to read, how many bytes of results at most (one result in any
-- case), what the key of a result is made by, how they are read for a client or "".
-- Returns {ledger, [entry, result's frame, its task, whose it is, bytes of its JSON, …], 1 where more results wait, the last
-- entry that there is}; notes when each task was first read, and how.
-- A request that is not accepted has no results.
local state, expires = unpack(redis.call('HMGET', KEYS[1], 'state', 'expires'))
local ledger, found, tasks, size, more, last = redis.call('HGETALL', KEYS[1]), {}, {}, 0, 0, ARGV[1]
if state ~= 'accepted' then return {ledger, found, more, last} end
local entries = redis.call('XRANGE', KEYS[2], '(' .. ARGV[1], '+')
if #entries > 0 then last = entries[#entries][1] end
for _, entry in ipairs(entries) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  size = size + fields.b
  if #tasks > 0 and size > tonumber(ARGV[2]) then
    more = 1
    break
  end
  tasks[#tasks + 1] = fields.t
  local frame = redis.pcall('GET', string.format(ARGV[3], fields.r, fields.t))
  for _, part in ipairs({entry[1], type(frame) == 'string' and frame, fields.t, fields.r, fields.b}) do
    found[#found + 1] = part
  end
end
if ARGV[4] ~= '' and #tasks > 0 then
  local t = redis.call('TIME')
  local said = t[1] * 1000 + math.floor(t[2] / 1000) .. '|' .. ARGV[4]
  for _, task in ipairs(tasks) do redis.call('HSETNX', KEYS[3], 'd:' .. task, said) end
  redis.call('PEXPIREAT', KEYS[3], expires)
end
return {ledger, found, more, last}
"""
READ: Final = Script("#!lua flags=allow-oom" + _READ)
READ_ONLY: Final = Script("#!lua flags=no-writes" + _READ)  # notes nothing: for a Redis that takes no writes, too

GROUPS: Final = Script("""#!lua flags=allow-oom
-- KEYS: out streams. ARGV: the group. Makes each a stream that has the group; what is there and is none goes. A full Redis
-- refuses XGROUP CREATE, and only what is read drains it. Returns for each what was wrong, or "".
local wrong = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  wrong[i] = (kind == 'none' or kind == 'stream') and '' or kind
  if wrong[i] ~= '' then redis.call('UNLINK', key) end
  local made = redis.pcall('XGROUP', 'CREATE', key, ARGV[1], '0', 'MKSTREAM')
  if made.err and not string.find(made.err, 'BUSYGROUP') then wrong[i] = made.err end
end
return wrong
""")

HOLD: Final = Script("""#!lua flags=allow-oom
-- KEYS: the lease. ARGV: who asks, for how many ms. Returns 1 when it is theirs.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""")

FORGET: Final = Script("""#!lua flags=allow-oom
-- KEYS: what each region holds. Forgets the bytes of results that have expired by now.
local minute = math.floor(redis.call('TIME')[1] / 60)
for _, key in ipairs(KEYS) do
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local until_minute = tonumber(fields[i])
    if until_minute and until_minute <= minute then
      redis.call('HINCRBY', key, 'all', -fields[i + 1])
      redis.call('HDEL', key, fields[i])
    end
  end
end
return 1
""")

SURPLUS: Final = Script("""#!lua flags=allow-oom
-- ARGV: a cursor of SCAN, how many keys, what results match, the pattern of one that a region brought (region, task), how a
-- ledger's key begins, who is no region, bytes that a result may have. Deletes those that nobody waits for.
-- Returns {the next cursor, region, bytes deleted, …}.
local found = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[3], 'COUNT', ARGV[2])
local gone, answer = {}, {found[1]}
for _, key in ipairs(found[2]) do
  local region, task = string.match(key, ARGV[4])
  if region and region ~= ARGV[6] then
    -- A task's id tells its request's: the last ten bits are zero (web.hub.ids).
    local said = redis.pcall('HGET', ARGV[5] .. string.sub(task, 1, -3) .. '00', 't:' .. task)
    local state, asked = string.match(type(said) == 'string' and said or '', '^(%l+)|(.*)$')
    local size = redis.call('MEMORY', 'USAGE', key)
    local is_asked = asked == region
    if is_asked and state ~= 'queued' and state ~= 'running' then
      local begins = string.sub(key, 1, #key - #task - #region - 1)
      is_asked = redis.call('EXISTS', begins .. ARGV[6] .. ':' .. task, begins .. region .. '+:' .. task) == 0
    end
    if not is_asked or size > tonumber(ARGV[7]) then
      redis.call('UNLINK', key)
      gone[region] = (gone[region] or 0) + size
    end
  end
end
for region, size in pairs(gone) do
  answer[#answer + 1] = region
  answer[#answer + 1] = size
end
return answer
""")

BAR: Final = Script("""#!lua flags=allow-oom
-- KEYS: who is barred. ARGV: a region, for how many ms, why.
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', t[1] * 1000 + ARGV[2]) .. ' ' .. ARGV[3])
return 1
""")

JUDGE: Final = Script("""#!lua
-- KEYS: verdicts. ARGV: source, the verdict that was there or "", the new one. Returns 1 when no other gateway wrote meanwhile.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
""")

KEEP_DEAD: Final = Script("""#!lua
-- KEYS: the letters, their times. ARGV: id, letter, how many are kept, for how many ms. Returns 1 when it is new.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function forget(ids)
  for _, id in ipairs(ids) do
    redis.call('HDEL', KEYS[1], id)
    redis.call('ZREM', KEYS[2], id)
  end
end
forget(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[4], 'LIMIT', 0, 100))
local is_new = redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
if is_new == 1 then redis.call('ZADD', KEYS[2], now, ARGV[1]) end
local over = redis.call('ZCARD', KEYS[2]) - ARGV[3]
if over > 0 then forget(redis.call('ZRANGE', KEYS[2], 0, over - 1)) end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return is_new
""")
