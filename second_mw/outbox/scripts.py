"""The Redis outbox's steps, each one Lua script and so one step for everybody (see `redis.py`).

KEYS are those of `redis.py` in their order; what ARGV holds is said where a script is run.
"""

from __future__ import annotations

from typing import Final

# What every script begins with: the keys by name, the clock, and how an entry is taken out. A
# script is sent whole each time: a kilobyte costs less than the ways in which a server that was
# restarted can have forgotten it.
_PRELUDE: Final = """
local events, waiting, held, rounds, dead, accounts = unpack(KEYS)
local group = 'forwarders'
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end
local function moment(seconds) return string.format('%.3f', seconds) end
local function entry(id)
  local found = redis.call('XRANGE', events, id, id)
  if #found == 0 then return nil end
  local fields = {}
  for i = 1, #found[1][2], 2 do fields[found[1][2][i]] = found[1][2][i + 1] end
  return fields
end
local function ready_group()
  local ok = pcall(redis.call, 'XINFO', 'GROUPS', events)
  if not ok then return false end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', events)) do
    local known = {}
    for i = 1, #info, 2 do known[info[i]] = info[i + 1] end
    if known['name'] == group then return known['last-delivered-id'] end
  end
  redis.call('XGROUP', 'CREATE', events, group, '0')
  return '0-0'
end
local function take_out(id, fields)
  redis.call('XACK', events, group, id)
  redis.call('XDEL', events, id)
  redis.call('ZREM', held, id)
  redis.call('HDEL', rounds, id)
  redis.call('HDEL', waiting, fields['i'])
end
"""

PUT: Final = (
    _PRELUDE
    + """
local now, room, identified_for = moment(clock(ARGV[1])), tonumber(ARGV[2]), ARGV[3]
if redis.call('EXISTS', events) == 0 then
  redis.call('XGROUP', 'CREATE', events, group, '0', 'MKSTREAM')
end
local fresh, seen, told = {}, {}, {}
for i = 4, #ARGV, 5 do
  local identity, person, what = ARGV[i], ARGV[i + 3], ARGV[i + 4]
  local known = person ~= '' and redis.call('GET', person) == what
  if not known and not seen[identity] and redis.call('HEXISTS', waiting, identity) == 0 then
    seen[identity] = true
    fresh[#fresh + 1] = i
  end
end
if #fresh > 0 and redis.call('XLEN', events) + #fresh > room then return -1 end
for _, i in ipairs(fresh) do
  local id = redis.call('XADD', events, '*',
    'p', ARGV[i + 1], 'a', now, 's', ARGV[i + 2], 'i', ARGV[i])
  redis.call('HSET', waiting, ARGV[i], id)
  if ARGV[i + 3] ~= '' then
    redis.call('SET', ARGV[i + 3], ARGV[i + 4], 'EX', identified_for)
  end
end
redis.call('HINCRBY', accounts, 'accepted', #fresh)
return #fresh
"""
)

LEASE: Final = (
    _PRELUDE
    + """
local now, limit, room = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local till, consumer = moment(now + tonumber(ARGV[4])), ARGV[5]
local last = ready_group()
if not last then return {} end
local taken, size, full = {}, 0, false
local function fits(bytes)
  if #taken > 0 and size + bytes > room then full = true end
  return not full
end
local due = redis.call('ZRANGEBYSCORE', held, '-inf', moment(now), 'LIMIT', 0, limit)
local function of(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end
table.sort(due, function(a, b)
  local ma, sa = of(a)
  local mb, sb = of(b)
  if ma ~= mb then return ma < mb end
  return sa < sb
end)
for _, id in ipairs(due) do
  local fields = entry(id)
  if fields == nil then
    redis.call('XACK', events, group, id)
    redis.call('ZREM', held, id)
  else
    if not fits(tonumber(fields['s'])) then break end
    size = size + tonumber(fields['s'])
    redis.call('XCLAIM', events, group, consumer, 0, id, 'JUSTID')
    redis.call('ZADD', held, till, id)
    taken[#taken + 1] = {id, fields['p'], fields['a'], redis.call('HGET', rounds, id) or '0'}
  end
end
if not full and #taken < limit then
  local count = 0
  local fresh = redis.call('XRANGE', events, '(' .. last, '+', 'COUNT', limit - #taken)
  local bytes = {}
  for n, item in ipairs(fresh) do
    for i = 1, #item[2], 2 do
      if item[2][i] == 's' then bytes[n] = tonumber(item[2][i + 1]) end
    end
    if #taken + count > 0 and size + bytes[n] > room then break end
    size = size + bytes[n]
    count = count + 1
  end
  if count > 0 then
    local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count,
      'STREAMS', events, '>')
    for _, item in ipairs(read[1][2]) do
      local fields = {}
      for i = 1, #item[2], 2 do fields[item[2][i]] = item[2][i + 1] end
      redis.call('ZADD', held, till, item[1])
      taken[#taken + 1] = {item[1], fields['p'], fields['a'], '0'}
    end
  end
end
return taken
"""
)

RENEW: Final = (
    _PRELUDE
    + """
local till, consumer = moment(clock(ARGV[1]) + tonumber(ARGV[2])), ARGV[3]
for i = 4, #ARGV do
  if entry(ARGV[i]) ~= nil then
    redis.call('XCLAIM', events, group, consumer, 0, ARGV[i], 'JUSTID')
    redis.call('ZADD', held, till, ARGV[i])
  end
end
return 0
"""
)

RELEASE: Final = (
    _PRELUDE
    + """
local till = moment(clock(ARGV[1]) + tonumber(ARGV[2]))
for i = 3, #ARGV do
  if entry(ARGV[i]) ~= nil then
    redis.call('HINCRBY', rounds, ARGV[i], 1)
    redis.call('ZADD', held, till, ARGV[i])
  end
end
return 0
"""
)

# Takes entries out and books them under the account that ARGV[1] names.
SETTLE: Final = (
    _PRELUDE
    + """
local count = 0
for i = 2, #ARGV do
  local fields = entry(ARGV[i])
  if fields ~= nil then
    take_out(ARGV[i], fields)
    count = count + 1
  end
end
redis.call('HINCRBY', accounts, ARGV[1], count)
return count
"""
)

BURY: Final = (
    _PRELUDE
    + """
local now, keep = moment(clock(ARGV[1])), tonumber(ARGV[2])
local count = 0
for i = 3, #ARGV, 2 do
  local fields = entry(ARGV[i])
  if fields ~= nil then
    redis.call('XADD', dead, '*', 'p', fields['p'], 'a', fields['a'], 's', fields['s'],
      'i', fields['i'], 'r', ARGV[i + 1], 'b', now)
    take_out(ARGV[i], fields)
    count = count + 1
  end
end
redis.call('HINCRBY', accounts, 'dead', count)
local t = redis.call('TIME')
redis.call('XTRIM', dead, 'MINID', '~', string.format('%d', (tonumber(t[1]) - keep) * 1000))
return count
"""
)

RETRY: Final = (
    _PRELUDE
    + """
local room, back, dropped = tonumber(ARGV[1]), {}, 0
if redis.call('EXISTS', events) == 0 then
  redis.call('XGROUP', 'CREATE', events, group, '0', 'MKSTREAM')
end
local letters, seen = {}, {}
for i = 2, #ARGV do
  local found = redis.call('XRANGE', dead, ARGV[i], ARGV[i])
  if #found > 0 then
    local fields = {}
    for j = 1, #found[1][2], 2 do fields[found[1][2][j]] = found[1][2][j + 1] end
    letters[#letters + 1] = ARGV[i]
    if seen[fields['i']] or redis.call('HEXISTS', waiting, fields['i']) == 1 then
      dropped = dropped + 1
    else
      seen[fields['i']] = true
      back[#back + 1] = fields
    end
  end
end
if redis.call('XLEN', events) + #back > room then return -1 end
for _, fields in ipairs(back) do
  local id = redis.call('XADD', events, '*',
    'p', fields['p'], 'a', fields['a'], 's', fields['s'], 'i', fields['i'])
  redis.call('HSET', waiting, fields['i'], id)
end
for _, id in ipairs(letters) do redis.call('XDEL', dead, id) end
redis.call('HINCRBY', accounts, 'dead', -#letters)
redis.call('HINCRBY', accounts, 'purged', dropped)
return #back
"""
)

PURGE: Final = (
    _PRELUDE
    + """
local count = redis.call('XLEN', events)
if redis.call('EXISTS', events) == 1 then
  -- Emptied, not deleted: a deleted stream would give ids out again, and leases have them.
  redis.call('XTRIM', events, 'MAXLEN', 0)
  pcall(redis.call, 'XGROUP', 'DESTROY', events, group)
  redis.call('XGROUP', 'CREATE', events, group, '$')
end
redis.call('UNLINK', waiting, held, rounds)
redis.call('HINCRBY', accounts, 'purged', count)
return count
"""
)

COUNTS: Final = (
    _PRELUDE
    + """
local now = clock(ARGV[1])
local booked = redis.call('HMGET', accounts, 'accepted', 'delivered', 'dead', 'purged')
local count = redis.call('XLEN', events)
local later = redis.call('ZCOUNT', held, '(' .. moment(now), '+inf')
local first = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)
local since = moment(now)
if #first > 0 then
  for i = 1, #first[1][2], 2 do
    if first[1][2][i] == 'a' then since = first[1][2][i + 1] end
  end
end
local soonest = redis.call('ZRANGE', held, 0, 0, 'WITHSCORES')
return {booked, count, later, moment(now), since, soonest[2] or ''}
"""
)
