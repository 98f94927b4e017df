"""The Redis outbox's steps, each one Lua script and so one step for everybody (see `redis.py`).

KEYS are those of `redis.py` in their order; what ARGV holds is said at each script. A server that
has no memory left refuses a script's first writing command if that one needs memory, and lets a
script that has begun to write end its work: steps that take out or put off begin with a command
that frees, so that a full Redis is still drained, and a put begins with one that needs memory.
"""

from __future__ import annotations

from typing import Final

# What every script begins with: the keys by name, the clock, and how an entry is taken out. A
# script is sent whole each time: a kilobyte costs less than the ways in which a server that was
# restarted can have forgotten it.
_PRELUDE: Final = """
local events, waiting, held, rounds, payloads, dead, letters, accounts = unpack(KEYS)
local group = 'forwarders'
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end
local function moment(seconds) return string.format('%.3f', seconds) end
local function identity_of(value)
  local length, begin = string.match(value, '^(%d+):()')
  return string.sub(value, begin, begin + tonumber(length) - 1)
end
local function named(words)
  local fields = {}
  for i = 1, #words, 2 do fields[words[i]] = words[i + 1] end
  return fields
end
local function fields_of(stream, id)
  local found = redis.call('XRANGE', stream, id, id)
  return #found > 0 and named(found[1][2]) or nil
end
local function waits(id) return redis.call('HEXISTS', payloads, id) == 1 end
local function ready_group()
  if redis.call('EXISTS', events) == 0 then
    redis.call('XGROUP', 'CREATE', events, group, '0', 'MKSTREAM')
  end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', events)) do
    local known = named(info)
    if known['name'] == group then return known['last-delivered-id'] end
  end
  redis.call('XGROUP', 'CREATE', events, group, '0')
  return '0-0'
end
local function take_out(id)
  local value = redis.call('HGET', payloads, id)
  redis.call('XACK', events, group, id)
  redis.call('XDEL', events, id)
  redis.call('ZREM', held, id)
  redis.call('HDEL', rounds, id)
  redis.call('HDEL', payloads, id)
  redis.call('HDEL', waiting, identity_of(value))
  return value
end
local function drop_letters(count, from, to)
  local gone = redis.call('XRANGE', dead, from, to, 'COUNT', count)
  for _, item in ipairs(gone) do
    redis.call('XDEL', dead, item[1])
    redis.call('HDEL', letters, item[1])
  end
  return #gone
end
"""

# now, room, seconds for which a person is known; then of each event: identity, payload, size, and
# for a $identify under which key it is remembered that PostHog was told of the person, and what:
# `name=digest;` for each property. Returns how many are new, or -1 if there is no room.
PUT: Final = (
    _PRELUDE
    + """
local now, room, known_for = moment(clock(ARGV[1])), tonumber(ARGV[2]), ARGV[3]
local function is_told(person, what)
  for name, digest in string.gmatch(what, '([^=;]+)=([^;]+);') do
    if redis.call('HGET', person, name) ~= digest then return false end
  end
  return true
end
local fresh, seen = {}, {}
for i = 4, #ARGV, 5 do
  local identity, person, what = ARGV[i], ARGV[i + 3], ARGV[i + 4]
  local told = person ~= '' and is_told(person, what)
  if not told and not seen[identity] and redis.call('HEXISTS', waiting, identity) == 0 then
    seen[identity] = true
    fresh[#fresh + 1] = i
  end
end
if #fresh == 0 then return 0 end
if redis.call('HLEN', waiting) + #fresh > room then return -1 end
redis.call('HINCRBY', accounts, 'accepted', #fresh)
ready_group()
for _, i in ipairs(fresh) do
  local id = redis.call('XADD', events, '*', 'a', now, 's', ARGV[i + 2])
  redis.call('HSET', payloads, id, ARGV[i + 1])
  redis.call('HSET', waiting, ARGV[i], id)
  local person = ARGV[i + 3]
  if person ~= '' then
    for name, digest in string.gmatch(ARGV[i + 4], '([^=;]+)=([^;]+);') do
      redis.call('HSET', person, name, digest)
    end
    redis.call('EXPIRE', person, known_for)
  end
end
return #fresh
"""
)

# now, events, bytes, seconds of the lease, seconds that no hold exceeds, consumer. Returns of each
# entry: id, payload, accepted_at, rounds.
LEASE: Final = (
    _PRELUDE
    + """
local now, limit, room = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local till, consumer = moment(now + tonumber(ARGV[4])), ARGV[6]
if redis.call('EXISTS', events) == 0 then return {} end
local last = ready_group()
local taken, size = {}, 0
local function fits(fields)
  local bytes = tonumber(fields['s'])
  if #taken > 0 and size + bytes > room then return false end
  size = size + bytes
  return true
end
local function take(id, fields)
  local value = redis.call('HGET', payloads, id)
  if not value then
    -- Somebody has deleted what is ours; this must not hold up the others.
    redis.call('XACK', events, group, id)
    redis.call('XDEL', events, id)
    return
  end
  redis.call('ZADD', held, till, id)
  taken[#taken + 1] = {id, value, fields['a'], redis.call('HGET', rounds, id) or '0'}
end

-- First what was held and is not any more, by its age; or longer than anything is held, which is
-- what a clock leaves that was put back.
local due = redis.call('ZRANGEBYSCORE', held, '-inf', moment(now), 'LIMIT', 0, limit)
local longest = '(' .. moment(now + tonumber(ARGV[5]))
for _, id in ipairs(redis.call('ZRANGEBYSCORE', held, longest, '+inf', 'LIMIT', 0, limit)) do
  due[#due + 1] = id
end
local function place(id)
  local ms, number = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(number)
end
table.sort(due, function(a, b)
  local of_a, in_a = place(a)
  local of_b, in_b = place(b)
  if of_a ~= of_b then return of_a < of_b end
  return in_a < in_b
end)
local full = false
for _, id in ipairs(due) do
  if full or #taken == limit then break end
  local fields = waits(id) and fields_of(events, id)
  if not fields then
    redis.call('ZREM', held, id)
  elseif fits(fields) then
    redis.call('XCLAIM', events, group, consumer, 0, id, 'JUSTID')
    take(id, fields)
  else
    full = true
  end
end
if full or #taken == limit then return taken end

-- Then what nobody has had: as much of it as fits, which the group hands out in one piece.
local count = 0
for _, item in ipairs(
  redis.call('XRANGE', events, '(' .. last, '+', 'COUNT', limit - #taken)) do
  local bytes = tonumber(named(item[2])['s'])
  if #taken + count > 0 and size + bytes > room then break end
  size = size + bytes
  count = count + 1
end
if count > 0 then
  local read = redis.call(
    'XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', events, '>')
  for _, item in ipairs(read[1][2]) do take(item[1], named(item[2])) end
end
return taken
"""
)

# now, seconds, consumer; then ids.
RENEW: Final = (
    _PRELUDE
    + """
local till, consumer = moment(clock(ARGV[1]) + tonumber(ARGV[2])), ARGV[3]
for i = 4, #ARGV do
  if waits(ARGV[i]) then
    redis.call('XCLAIM', events, group, consumer, 0, ARGV[i], 'JUSTID')
    redis.call('ZADD', held, till, ARGV[i])
  end
end
return 0
"""
)

# now, seconds; then ids. What may be had at once is ready whatever the clock does next.
RELEASE: Final = (
    _PRELUDE
    + """
local seconds = tonumber(ARGV[2])
local till = seconds > 0 and moment(clock(ARGV[1]) + seconds) or '0'
for i = 3, #ARGV do
  if waits(ARGV[i]) then
    redis.call('ZREM', held, ARGV[i])
    redis.call('ZADD', held, till, ARGV[i])
    redis.call('HINCRBY', rounds, ARGV[i], 1)
  end
end
return 0
"""
)

# An account; then ids, which are taken out and booked there. Returns how many there were.
SETTLE: Final = (
    _PRELUDE
    + """
local count = 0
for i = 2, #ARGV do
  if waits(ARGV[i]) then
    take_out(ARGV[i])
    count = count + 1
  end
end
if count > 0 then redis.call('HINCRBY', accounts, ARGV[1], count) end
return count
"""
)

# now; then ids, each with its reason.
BURY: Final = (
    _PRELUDE
    + """
local now, count = moment(clock(ARGV[1])), 0
for i = 2, #ARGV, 2 do
  local fields = waits(ARGV[i]) and fields_of(events, ARGV[i])
  if fields then
    local value = take_out(ARGV[i])
    local id = redis.call('XADD', dead, '*',
      'a', fields['a'], 's', fields['s'], 'r', ARGV[i + 1], 'b', now)
    redis.call('HSET', letters, id, value)
    count = count + 1
  end
end
if count > 0 then redis.call('HINCRBY', accounts, 'dead', count) end
return count
"""
)

# room; then ids of dead letters. Returns how many wait again, or -1 if there is no room.
RETRY: Final = (
    _PRELUDE
    + """
local room, back, gone, dropped, seen = tonumber(ARGV[1]), {}, {}, 0, {}
for i = 2, #ARGV do
  local fields, value = fields_of(dead, ARGV[i]), redis.call('HGET', letters, ARGV[i])
  if fields and value then
    local identity = identity_of(value)
    gone[#gone + 1] = ARGV[i]
    if seen[identity] or redis.call('HEXISTS', waiting, identity) == 1 then
      dropped = dropped + 1
    else
      seen[identity] = true
      back[#back + 1] = {identity, value, fields}
    end
  end
end
if redis.call('HLEN', waiting) + #back > room then return -1 end
for _, id in ipairs(gone) do
  redis.call('XDEL', dead, id)
  redis.call('HDEL', letters, id)
end
if #gone > 0 then ready_group() end
for _, each in ipairs(back) do
  local fields = each[3]
  local id = redis.call('XADD', events, '*', 'a', fields['a'], 's', fields['s'])
  redis.call('HSET', payloads, id, each[2])
  redis.call('HSET', waiting, each[1], id)
end
redis.call('HINCRBY', accounts, 'dead', -#gone)
redis.call('HINCRBY', accounts, 'purged', dropped)
return #back
"""
)

# Nothing. Returns how many waited.
PURGE: Final = (
    _PRELUDE
    + """
local count = redis.call('HLEN', waiting)
redis.call('UNLINK', waiting, held, rounds, payloads)
if redis.call('EXISTS', events) == 1 then
  -- Emptied, not deleted: a deleted stream would give ids out again, and leases have them.
  redis.call('XTRIM', events, 'MAXLEN', 0)
  redis.call('XGROUP', 'DESTROY', events, group)
  redis.call('XGROUP', 'CREATE', events, group, '$')
end
if count > 0 then redis.call('HINCRBY', accounts, 'purged', count) end
return count
"""
)

# Nothing. Returns how many letters there were.
PURGE_DEAD: Final = (
    _PRELUDE
    + """
local count = redis.call('XLEN', dead)
redis.call('UNLINK', dead, letters)
return count
"""
)

# Ids of dead letters. Returns how many of them there were.
DROP: Final = (
    _PRELUDE
    + """
local count = 0
for i = 1, #ARGV do count = count + drop_letters(1, ARGV[i], ARGV[i]) end
return count
"""
)

# Seconds for which letters are kept, how many at the most, how many to drop in this step, and
# after how many milliseconds a consumer without a lease is gone. Returns how many were too old,
# and how many too many.
TIDY: Final = (
    _PRELUDE
    + """
local keep, most, step, idle = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local last = string.format('%.0f', math.floor((clock('') - keep) * 1000))
local old = drop_letters(step, '-', last)
local surplus = redis.call('XLEN', dead) - most
if surplus > 0 then surplus = drop_letters(math.min(surplus, step), '-', '+') else surplus = 0 end
if redis.call('EXISTS', events) == 1 then
  ready_group()
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', events, group)) do
    local known = named(info)
    if known['pending'] == 0 and known['idle'] > tonumber(idle) then
      redis.call('XGROUP', 'DELCONSUMER', events, group, known['name'])
    end
  end
end
return {old, surplus}
"""
)

# now. Returns accepted, delivered, dead and purged; how many wait, how many of them later; now;
# since when the oldest waits; and when the next is not held any more.
COUNTS: Final = (
    _PRELUDE
    + """
local now = moment(clock(ARGV[1]))
local booked = redis.call('HMGET', accounts, 'accepted', 'delivered', 'dead', 'purged')
local count = redis.call('HLEN', waiting)
local later = redis.call('ZCOUNT', held, '(' .. now, '+inf')
local first = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)
local since = #first > 0 and named(first[1][2])['a'] or now
local soonest = redis.call('ZRANGE', held, 0, 0, 'WITHSCORES')
return {booked, count, later, now, since, soonest[2] or ''}
"""
)
