-- The leader of a log is alive, and may have a page to write. How many follow; -1 where the log is gone.
-- KEYS: the place. ARGV: the log's name, the page's number (0: there is none), the page, milliseconds that the log is kept,
-- whether more may join, what channels begin with.
local log = KEYS[1] .. ':' .. ARGV[1]
if redis.call('EXISTS', log) == 0 then return -1 end
local leads = redis.call('GET', KEYS[1])
if ARGV[5] == '1' and (not leads or leads == ARGV[1]) then
  -- Also of one that could not be joined for a while: too long as long as it had not ended.
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[4])
elseif leads == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', log .. ':readers', '-inf', time[1] * 1000 + math.floor(time[2] / 1000))
local readers, number = redis.call('ZRANGE', log .. ':readers', 0, -1), tonumber(ARGV[2])
if number > 0 then
  -- What was sent twice is there already.
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  if tonumber(string.match(last[1][1], '^%d+')) < number then
    redis.call('XADD', log, ARGV[2] .. '-0', 'page', ARGV[3])
    for _, reader in ipairs(readers) do redis.call('PUBLISH', ARGV[6] .. reader, KEYS[1]) end
  end
end
redis.call('PEXPIRE', log, ARGV[4])
redis.call('PEXPIRE', log .. ':readers', ARGV[4])
return #readers
