-- Begin the leases of places anew, also of those that the server does not know (any more).
-- KEYS: places by the end of their lease. ARGV: lease in microseconds, the time or nothing for the server's, and the places.
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local until_then = string.format('%.0f', now + ARGV[1])
for index = 3, #ARGV do
  redis.call('ZADD', KEYS[1], until_then, ARGV[index])
end
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil(ARGV[1] / 1000)))
