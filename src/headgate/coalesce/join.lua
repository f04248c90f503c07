-- Follow the log at a place, or lead there with a new one. The log's name; asked twice, the answer is the same.
-- KEYS: the place. ARGV: the name of the log that would be new, milliseconds of a log and of a lease, who asks, what channels begin with.
local name = redis.call('GET', KEYS[1])
if name == ARGV[1] then return name end
if name and redis.call('EXISTS', KEYS[1] .. ':' .. name) == 1 then
  local readers, time = KEYS[1] .. ':' .. name .. ':readers', redis.call('TIME')
  redis.call('ZADD', readers, time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3], ARGV[4])
  redis.call('PEXPIRE', readers, ARGV[2])
  redis.call('PUBLISH', ARGV[5] .. string.match(name, '^(.*)-%d+$'), KEYS[1])
  return name
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('XADD', KEYS[1] .. ':' .. ARGV[1], '0-1', 'leads', ARGV[4])
redis.call('PEXPIRE', KEYS[1] .. ':' .. ARGV[1], ARGV[2])
return ARGV[1]
