-- Take a place among those that run, and `cost` of a rate: both or nothing. GCRA as in memory.py, times in microseconds.
-- KEYS: when the rate is full again; places by the end of their lease. ARGV: the place's name, how many there are, interval and
-- burst of the rate, cost, lease, the time or nothing for the server's, and places of the same process that are over.
-- Answers {0 taken, 1 too many run, 2 the rate is used up; how many remain; until full again; until there is room}.
local function text(number) return string.format('%.0f', number) end

local now = tonumber(ARGV[7])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local place, places = ARGV[1], tonumber(ARGV[2])
local interval, burst, cost, lease = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

-- A clock that was set back takes nothing from anybody: what lies further ahead than can be is taken for the furthest that can.
local full_at = math.min(math.max(now, tonumber(redis.call('GET', KEYS[1]) or now)), now + burst)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now))
redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. text(now + lease), '+inf')
if #ARGV > 7 then redis.call('ZREM', KEYS[2], unpack(ARGV, 8)) end

local function told(verdict, full, wait)
  return {verdict, math.max(0, math.floor((now + burst - full) / interval)), full - now, math.max(0, wait)}
end

if redis.call('ZSCORE', KEYS[2], place) then
  return told(0, full_at, 0) -- sent a second time by a client that did not hear the first answer
end
local after = full_at + cost * interval
local over = after - now - burst
if redis.call('ZCARD', KEYS[2]) >= places then
  return told(1, full_at, over)
end
if over > 0 then
  return told(2, full_at, over)
end
redis.call('SET', KEYS[1], text(after), 'PX', text(math.ceil((after - now) / 1000) + 1000))
redis.call('ZADD', KEYS[2], text(now + lease), place)
redis.call('PEXPIRE', KEYS[2], text(math.ceil(lease / 1000)))
return told(0, after, 0)
