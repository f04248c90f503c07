-- Store an entry. ARGV[3]: the number of the last invalidation before its answer was asked for; most entries; most bytes; name; head, but for
-- its number; body; vector as float32, or empty. Answers the estate and 'stored', 'refused', 'again' (some made room, call once more) or
-- 'since' with the invalidations since; after 'stored' and 'again' how many have made room.

local SWEPT, EVICTED = 16, 32
local since, most, bytes, name = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local one, body, vector = parsed(struct.pack('<d', 0) .. ARGV[7]), ARGV[8], ARGV[9]

if since > number then lost(since) end -- told by others, of a memory that is gone
if since < dropped or one.ending <= now then return {estate(), 'refused'} end
if since < number then
  local found = {}
  for _, each in ipairs(call('LRANGE', news, 0, -1)) do
    if struct.unpack('<d', each) > since then found[#found + 1] = string.sub(each, 9) end
  end
  return {estate(), 'since', found}
end
if vector ~= '' and not fits(one.place, vector) then return {estate(), 'refused'} end

sweep(SWEPT)
local old = read(name)
if old then drop(name, old) end
local evicted = 0
while size > 0 and (size >= most or weight + weight_of(one) > bytes) do
  if evicted == EVICTED then return {estate(), 'again', evicted} end
  local first = call('ZRANGE', ranks, 0, 0, 'WITHSCORES')
  local its = string.sub(first[1], 9)
  local least = read(its)
  call('HSET', own, 'floor', first[2])
  if not least then return {estate(), 'refused', call('ZREM', ranks, first[1])} end
  drop(its, least)
  evicted = evicted + 1
end

local lasting = (one.ending - now) * 1000
one.number = call('HINCRBY', own, 'last', 1)
call('HSET', heads, name, struct.pack('<d', one.number) .. ARGV[7])
call('SET', body_of(name), body, 'PX', whole(math.ceil(lasting)))
call('HSET', ids, one.id, name)
rank(name, one, 1)
if vector == '' then
  call('ZADD', ends, one.ending, name)
else
  lay(one.place, name, vector, lasting)
  call('ZADD', ends, one.semantic, name)
end
weigh(weight_of(one))
size = size + 1
if size == 1 or call('PTTL', own) < lasting + KEPT then last(lasting + MORE) end
return {estate(), 'stored', evicted}
