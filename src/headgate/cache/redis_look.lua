-- Find an entry by its name and, where there is none, the nearest ones of a place. ARGV[3]: name, or empty; seconds past its time that will
-- do; place, or empty; the question's vector as float32; how many; how far to search. Answers the estate and head and body of the one,
-- or an empty list; for each that is near head, body and its vector; and 1 when the index is not there.

local ROUNDS = 8
local name, stale, place, vector, count, effort = ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local one = name ~= '' and read(name)
if one then
  local late = now - one.expires
  local body = one.ending > now and (late < 0 or late < stale) and call('GET', body_of(name))
  if body then
    use(name, one)
    return {estate(), {one.head, body}, {}}
  end
  if one.ending <= now or call('EXISTS', body_of(name)) == 0 then drop(name, one) end
end

local near = {}
for _ = 1, place ~= '' and ROUNDS or 0 do
  local dead = 0
  near = {}
  for _, element in ipairs(nearest(place, vector, count, effort)) do
    local each = read(element)
    local body = each and each.place == place and each.semantic > now and call('GET', body_of(element))
    if body then
      near[#near + 1] = {each.head, body, vector_of(place, element)}
    else
      dead = dead + 1
      if not each or each.place ~= place then
        lift(place, element)
      elseif each.ending > now and call('EXISTS', body_of(element)) == 1 then
        forget(element, each)
      else
        drop(element, each)
      end
    end
  end
  if dead == 0 then break end
end
return {estate(), {}, near, unindexed}
