-- Vectors in an index of RediSearch: a hash for each, of all tenants and places in one index of their dimensions, see redis_vectors.py. What a
-- question may be compared with is the tag `place`, which the tenant's own key is a part of.

local at = string.find(own, '{', 1, true)
local dimensions_of = function(vector) return whole(#vector / 4) end

local function base(dimensions) return string.sub(own, 1, at - 1) .. 'near:' .. dimensions .. ':' .. string.sub(own, at) .. ':' end

local function tag(place) return redis.sha1hex(own .. ' ' .. whole(born) .. ' ' .. place) end

local function size_key(place) return own .. ':size:' .. whole(born) .. ':' .. place end

local function hash_of(place, name)
  local dimensions = call('GET', size_key(place))
  return dimensions and base(dimensions) .. name
end

fits = function(place, vector)
  local dimensions = call('GET', size_key(place))
  return not dimensions or dimensions == dimensions_of(vector)
end

lay = function(place, name, vector, lasting)
  local size, ms = size_key(place), whole(math.max(lasting, call('PTTL', size_key(place))))
  call('SET', size, dimensions_of(vector), 'PX', ms)
  local hash = hash_of(place, name)
  call('HSET', hash, 'place', tag(place), 'vector', vector)
  call('PEXPIRE', hash, whole(lasting))
end

lift = function(place, name)
  local hash = hash_of(place, name)
  if hash then call('UNLINK', hash) end
end

nearest = function(place, vector, count, effort)
  if not fits(place, vector) then return {} end
  local before = base(dimensions_of(vector))
  local found = redis.pcall('FT.SEARCH', string.sub(own, 1, at - 1) .. 'near:1:' .. dimensions_of(vector),
    '(@place:{' .. tag(place) .. '})=>[KNN $count @vector $vector EF_RUNTIME $effort AS distance]',
    'PARAMS', 6, 'count', count, 'vector', vector, 'effort', effort,
    'SORTBY', 'distance', 'NOCONTENT', 'LIMIT', 0, count, 'DIALECT', 2)
  if found.err then
    unindexed = 1
    return {}
  end
  local names = {}
  for index = 2, #found do names[#names + 1] = string.sub(found[index], #before + 1) end
  return names
end

vector_of = function(place, name) return call('HGET', hash_of(place, name), 'vector') end
