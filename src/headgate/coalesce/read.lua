-- The pages of a log after one; its reader follows for a while longer. False where the log is gone.
-- KEYS: the place. ARGV: the log's name, the number of the page, this replica, milliseconds of a lease, what channels begin with.
local log = KEYS[1] .. ':' .. ARGV[1]
local left = redis.call('PTTL', log)
if left < 0 then return false end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_then = redis.call('ZSCORE', log .. ':readers', ARGV[3])
redis.call('ZADD', log .. ':readers', now + ARGV[4], ARGV[3])
redis.call('PEXPIRE', log .. ':readers', left)
if not until_then or tonumber(until_then) <= now then
  redis.call('PUBLISH', ARGV[5] .. string.match(ARGV[1], '^(.*)-%d+$'), KEYS[1])
end
local pages = {}
for _, entry in ipairs(redis.call('XRANGE', log, (ARGV[2] + 1) .. '-0', '+')) do pages[#pages + 1] = entry[2][2] end
return pages
