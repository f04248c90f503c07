-- One tenant's stored answers in Redis: what every script of the cache begins with.
-- KEYS[1]: the tenant's own key; ARGV[1]: the time, unix seconds (empty: the server's); ARGV[2]: the `born` that the caller knows, or 0.
--
-- own     born: when this memory began, µs of the server; number: of the last invalidation, µs, 0 before the first; dropped: up to which
--         number invalidations are not remembered one by one; floor: priority of what was evicted last; last: number of the newest entry; weight
-- :heads  by name: what is known of an entry, see redis_rows.py. What is not in here does not exist, whatever else lies about
-- :ranks  numbers and names by priority (eviction.py); of equals the oldest is the first
-- :ends   names by when there is something to be done about them, unix seconds
-- :ids    names by id
-- :uses   how often it was asked for after it came, of those that were
-- :news   the last invalidations: number and selection
-- :body:<name>          what only who is given the answer wants to see; goes by itself when its time is over
-- Where vectors lie is said by redis_sets.lua or redis_search.lua, which follows; that goes by itself, too.
--
-- All keys have the hash tag of KEYS[1], so those that are made up here lie where it does.
--
-- What Redis has lost is noticed: by who knows another `born` or a later number, and by three counts that should be one.

local own = KEYS[1]
local heads, ranks, ends, ids = own .. ':heads', own .. ':ranks', own .. ':ends', own .. ':ids'
local uses, news = own .. ':uses', own .. ':news'
local call = redis.call
local NOWHERE = string.rep('\0', 16)
local KEPT = 86400000 -- ms that the tenant's own keys outlive its entries
local MORE = 3600000 -- ms for which that is not asked for again
local MOST_USES = 254

local time = call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = tonumber(ARGV[1]) or micros / 1000000

local state = call('HMGET', own, 'born', 'number', 'dropped', 'weight')
local born, number, dropped = tonumber(state[1]), tonumber(state[2]) or 0, tonumber(state[3]) or 0
local weight, size = tonumber(state[4]) or 0, call('HLEN', heads)

local function whole(value) return string.format('%.0f', value) end

-- Have the tenant's keys live for so many ms more, at least. A key that is made later has to be told, too.
local function last(ms)
  ms = whole(math.max(ms + KEPT, call('PTTL', own)))
  for _, key in ipairs({own, heads, ranks, ends, ids, uses, news}) do call('PEXPIRE', key, ms) end
end

if not born or call('ZCARD', ranks) ~= size or call('ZCARD', ends) ~= size then
  call('UNLINK', own, heads, ranks, ends, ids, uses, news)
  born, number, dropped, weight, size = micros, 0, 0, 0, 0
  call('HSET', own, 'born', whole(born))
  last(0)
end
-- Invalidations may have been forgotten: nothing is stored that was asked for before now.
local function lost(later)
  number = math.max(micros, (later or 0) + 1)
  dropped = number
  call('HSET', own, 'number', whole(number), 'dropped', whole(dropped))
end

if tonumber(ARGV[2]) > 0 and tonumber(ARGV[2]) ~= born and dropped < born then lost() end

-- What every script answers first.
local function estate() return {born, number, size, weight} end

local function weigh(more) weight = call('HINCRBY', own, 'weight', more) end

local function body_of(name) return own .. ':body:' .. name end

-- fits(place, vector): whether it has as many dimensions as those that lie there
-- lay(place, name, vector, ms): have a vector found for so long; lift(place, name): and no more
-- nearest(place, vector, count, effort): the names of those nearest to it; vector_of(place, name): one of them, as float32 or signed bytes
local fits, lay, lift, nearest, vector_of
local unindexed = 0

local function parsed(head)
  local one = {head = head}
  one.number, one.worth, one.expires, one.semantic, one.ending, one.weight, one.heavier, one.place =
    struct.unpack('<dddddI4I4c16', head)
  one.semantic = math.min(one.semantic, one.expires)
  one.id = string.sub(head, 66, 65 + string.byte(head, 65))
  return one
end

local function read(name)
  local head = call('HGET', heads, name)
  return head and parsed(head)
end

local function weight_of(one) return one.weight + (one.place ~= NOWHERE and one.heavier or 0) end

local function ranked(name, one) return struct.pack('>d', one.number) .. name end

local function rank(name, one, used)
  local floor = tonumber(call('HGET', own, 'floor')) or 0
  call('ZADD', ranks, floor + used * (one.worth + 1) / weight_of(one), ranked(name, one))
end

-- Count a use.
local function use(name, one)
  local used = tonumber(call('HGET', uses, name)) or 0
  if used < MOST_USES then
    -- A server without memory takes no note of it, but the answer is given.
    local counted = redis.pcall('HINCRBY', uses, name, 1)
    if type(counted) == 'table' then return end
    used = counted
    if used == 1 then call('PEXPIRE', uses, call('PTTL', own)) end
  end
  rank(name, one, used + 1)
end

-- Let go of an entry's vector; it is still found by its key.
local function forget(name, one)
  local head = string.sub(one.head, 1, 48) .. NOWHERE .. string.sub(one.head, 65)
  if type(redis.pcall('HSET', heads, name, head)) == 'table' then return end
  lift(one.place, name)
  call('ZADD', ends, one.ending, name)
  weigh(-one.heavier)
end

-- Let go of an entry.
local function drop(name, one)
  if one.place ~= NOWHERE then lift(one.place, name) end
  call('HDEL', heads, name)
  call('ZREM', ranks, ranked(name, one))
  call('ZREM', ends, name)
  call('HDEL', uses, name)
  if call('HGET', ids, one.id) == name then call('HDEL', ids, one.id) end
  call('UNLINK', body_of(name))
  weigh(-weight_of(one))
  size = size - 1
end

-- Let go of what is too old, at most so many; how many it were.
local function sweep(most)
  local due = call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, most)
  for _, name in ipairs(due) do
    local one = read(name)
    if not one then call('ZREM', ends, name) -- the counts differ then, and all begins anew
    elseif one.ending <= now then drop(name, one)
    else forget(name, one) end
  end
  return #due
end
