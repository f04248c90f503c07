-- Vectors in the vector sets of Redis 8: one set for a namespace's partition.
--
-- Vectors are added and searched without threads, as everything in a script is: a search in a thread beside a removal makes Redis 8 read
-- freed memory (mended in 8.4.6 and 8.10.1).

local function set_of(place) return own .. ':near:' .. whole(born) .. ':' .. place end

fits = function(place, vector)
  local dimensions = redis.pcall('VDIM', set_of(place))
  return type(dimensions) ~= 'number' or dimensions == #vector / 4
end

lay = function(place, name, vector, lasting)
  local set = set_of(place)
  call('VADD', set, 'FP32', vector, name, 'Q8', 'EF', 100, 'M', 16)
  call('PEXPIRE', set, whole(math.max(lasting, call('PTTL', set))))
end

lift = function(place, name) call('VREM', set_of(place), name) end

nearest = function(place, vector, count, effort)
  -- A vector of another size than those in the set is near to none of them.
  local found = redis.pcall('VSIM', set_of(place), 'FP32', vector, 'COUNT', count, 'EF', effort)
  return found.err and {} or found
end

vector_of = function(place, name) return call('VEMB', set_of(place), name, 'RAW')[2] end
