-- The till of one owner. KEYS[1]: its money; ARGV: what to do, the time in ms (empty: the server's), and what that takes.
--
-- money        epoch, term, and for each window that is filled, `w:<window>`: until when it is kept, ms
-- w:<window>   n: the number up to which it was filled; s<account>: spent; h<account>: held
-- r:<id>       a reservation: epoch, and amount, tokens, scopes while it is open; then counted: the windows in which it was
-- open         ids of open reservations by deadline, ms; and a member without a name, by which it is seen that none was lost
-- claim:<epoch>  somebody is about to fill this epoch, once
--
-- All keys have the hash tag of KEYS[1], so those that are made up here lie where it does. Amounts are decimal texts of any length, reckoned
-- in two parts: a number of Lua is exact to 2^53 only. A list of scopes is flat: window, account, cap ('' none, '-' suspended), tokens or ''.
--
-- What Redis has lost is never taken for zero. `term` names the time since this server began to be the master: who restarts from an old
-- snapshot, or follows a master without having heard all, has another. (So has a master that gets its first replica: then all is filled anew
-- once, for nothing.) A key that ought to be there and is not was evicted.

local money = KEYS[1]
local base = string.sub(money, 1, -6)
local open = base .. 'open'
local call = redis.call
local WINDOW_KEPT, ENDED_KEPT = 7200000, 3600000
local EVER = 9007199254740991
local UNKNOWN = {'?'}

local BILLION = 1000000000
local MOST_HIGH, MOST_LOW = 9223372036, 854775807 -- 2^63 - 1

local function parts(text)
  if not text then return 0, 0 end
  local length = #text
  if length < 10 then return 0, tonumber(text) end
  return tonumber(string.sub(text, 1, length - 9)), tonumber(string.sub(text, length - 8))
end

local function text(high, low)
  if high == 0 then return string.format('%.0f', low) end
  return string.format('%.0f%09.0f', high, low)
end

local function plus(high, low, more_high, more_low)
  high, low = high + more_high, low + more_low
  if low >= BILLION then return high + 1, low - BILLION end
  return high, low
end

local function minus(high, low, less_high, less_low) -- below zero when the high part is
  high, low = high - less_high, low - less_low
  if low < 0 then return high - 1, low + BILLION end
  return high, low
end

local function less(high, low, than_high, than_low)
  return high < than_high or high == than_high and low < than_low
end

local moment = tonumber(ARGV[2])
local function now()
  if not moment then
    local time = call('TIME')
    moment = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return moment
end

local function is_of_this_term(term)
  return string.find(call('INFO', 'replication'), term, 1, true) ~= nil
end

-- What is left counts for nothing any more: all has to be filled anew.
local function lost()
  call('DEL', money)
  return UNKNOWN
end

-- The windows of a flat list with `step` values for each, behind those of `more`.
local function windows_of(list, step, more)
  local windows = more or {}
  for i = 1, #list, step do windows[#windows + 1] = 'w:' .. list[i] end
  return windows
end

-- The epoch, and until when each window is kept, or false; nothing where the owner is unknown.
local function standing(windows)
  local meta = call('HMGET', money, 'epoch', 'term', unpack(windows))
  if not meta[1] or not is_of_this_term(meta[2]) then return nil end
  local untils, time = {}, now()
  for i = 1, #windows do
    local till = meta[i + 2] and tonumber(meta[i + 2])
    untils[i] = till and till > time and till
  end
  return meta[1], untils
end

-- For each scope: what is spent and held, and the texts of both for the answer; nothing where a window was lost.
local function balances(scopes)
  local all = {}
  for i = 1, #scopes, 4 do
    local row = call('HMGET', base .. 'w:' .. scopes[i], 'n', 's' .. scopes[i + 1], 'h' .. scopes[i + 1])
    if not row[1] then return nil end
    all[#all + 1] = row
  end
  return all
end

-- Money that may still be held everywhere, in two parts; nothing where a scope refuses. As `room` in room.py.
local function room(scopes, all, needed, tokens)
  local needed_high, needed_low = parts(needed)
  local tokens_high, tokens_low = parts(tokens)
  local most_high, most_low = MOST_HIGH, MOST_LOW
  for i, row in ipairs(all) do
    local cap, counts_tokens = scopes[4 * i - 1], scopes[4 * i] ~= ''
    if cap == '-' then return nil end
    if cap ~= '' then
      local high, low = parts(cap)
      high, low = minus(high, low, parts(row[2]))
      high, low = minus(high, low, parts(row[3]))
      if counts_tokens then
        if tokens ~= '0' and less(high, low, tokens_high, tokens_low) then return nil end
      elseif less(high, low, needed_high, needed_low) then
        return nil
      elseif less(high, low, most_high, most_low) then
        most_high, most_low = high, low
      end
    end
  end
  return most_high, most_low
end

-- How much of an amount is held where there is room for so much. As `share` in room.py.
local function share(amount, least, high, low)
  local rest = high % 8
  high, low = (high - rest) / 8, math.floor((rest * BILLION + low) / 8)
  local amount_high, amount_low = parts(amount)
  if less(amount_high, amount_low, high, low) then high, low = amount_high, amount_low end
  local least_high, least_low = parts(least)
  if less(high, low, least_high, least_low) then high, low = least_high, least_low end
  return text(high, low)
end

-- Change what is held on each scope by `change`, and keep its window for as long as the lease.
local function weigh(scopes, all, untils, change, amount, tokens, deadline, time)
  local amount_high, amount_low = parts(amount)
  local tokens_high, tokens_low = parts(tokens)
  for i, row in ipairs(all) do
    local window, high, low = scopes[4 * i - 3], parts(row[3])
    if scopes[4 * i] ~= '' then
      high, low = change(high, low, tokens_high, tokens_low)
    else
      high, low = change(high, low, amount_high, amount_low)
    end
    row[3] = text(high, low)
    call('HSET', base .. 'w:' .. window, 'h' .. scopes[4 * i - 2], row[3])
    if untils[i] < deadline + WINDOW_KEPT then
      untils[i] = deadline + WINDOW_KEPT
      call('HSET', money, 'w:' .. window, untils[i])
      call('PEXPIRE', base .. 'w:' .. window, untils[i] - time, 'GT')
    end
  end
end

local function answer(what, all)
  for _, row in ipairs(all) do
    what[#what + 1] = row[2] or '0'
    what[#what + 1] = row[3] or '0'
  end
  return what
end

local function begin(id, epoch, packed, amount, tokens, deadline)
  -- A reservation whose record was lost is in `open` already.
  if call('ZADD', open, 'NX', deadline, id) == 0 then return false end
  call('DEL', base .. 'r:' .. id)
  call('HSET', base .. 'r:' .. id, 'epoch', epoch, 'amount', amount, 'tokens', tokens, 'scopes', packed)
  return true
end

local act = {}

function act.hold(id, packed, amount, least, tokens, lease)
  local scopes = cmsgpack.unpack(packed)
  local epoch, untils = standing(windows_of(scopes, 4))
  if not epoch then return UNKNOWN end
  local missing = {'?'}
  for i, till in ipairs(untils) do
    if not till then missing[#missing + 1] = scopes[4 * i - 3] end
  end
  if #missing > 1 then return missing end
  local all = balances(scopes)
  if not all then return lost() end
  local known = call('HMGET', base .. 'r:' .. id, 'epoch', 'amount')
  if known[1] == epoch then return answer({'+', known[2] or amount, epoch}, all) end
  local high, low = room(scopes, all, least, tokens)
  if not high then return answer({'-'}, all) end
  local granted, time = share(amount, least, high, low), now()
  local deadline = time + lease
  if not begin(id, epoch, packed, granted, tokens, deadline) then return lost() end
  weigh(scopes, all, untils, plus, granted, tokens, deadline, time)
  return answer({'+', granted, epoch}, all)
end

function act.extend(id, lease, amount)
  local known = call('HMGET', base .. 'r:' .. id, 'epoch', 'amount', 'scopes')
  local scopes, time = known[3] and cmsgpack.unpack(known[3]) or {}, now()
  local epoch, untils = standing(windows_of(scopes, 4))
  if not epoch then return UNKNOWN end
  if known[1] ~= epoch or not known[2] then
    if call('ZSCORE', open, id) then return lost() end
    return {'.'}
  end
  for _, till in ipairs(untils) do
    if not till then return {'.'} end -- its lease has been over for long
  end
  local all = balances(scopes)
  if not all then return lost() end
  if amount == '' then amount = known[2] end
  local high, low = parts(amount)
  local change, change_high, change_low = plus, minus(high, low, parts(known[2]))
  if change_high < 0 then
    change, change_high, change_low = minus, minus(0, 0, change_high, change_low)
  elseif change_high + change_low > 0 and not room(scopes, all, text(change_high, change_low), '0') then
    return answer({'-'}, all)
  end
  call('ZADD', open, 'XX', time + lease, id)
  call('HSET', base .. 'r:' .. id, 'amount', amount)
  weigh(scopes, all, untils, change, text(change_high, change_low), '0', time + lease, time)
  return answer({'+', amount, epoch}, all)
end

-- The row of a place, read when it is first asked for; nothing where its window was lost.
local function row_of(rows, window, account)
  local place = window .. '\n' .. account
  if not rows[place] then
    local row = call('HMGET', base .. 'w:' .. window, 'n', 's' .. account, 'h' .. account)
    if not row[1] then return nil end
    rows[place], rows[#rows + 1] = row, row
    row[4], row[5] = window, account
  end
  return rows[place]
end

function act.finish(id, number, packed)
  local record = base .. 'r:' .. id
  local known = call('HMGET', record, 'epoch', 'amount', 'tokens', 'scopes', 'counted')
  local scopes, spent = known[4] and cmsgpack.unpack(known[4]) or {}, cmsgpack.unpack(packed)
  local epoch, untils = standing(windows_of(spent, 3, windows_of(scopes, 4)))
  if not epoch then return end
  -- The first to be written frees memory: an ending is taken also where there is none left.
  call('DEL', record)
  local is_known, was_open = known[1] == epoch, call('ZREM', open, id) == 1
  if (is_known and known[2] ~= false) ~= was_open then return lost() end
  local rows = {}
  for i = 1, was_open and #scopes / 4 or 0 do
    if untils[i] then
      local row = row_of(rows, scopes[4 * i - 3], scopes[4 * i - 2])
      if not row then return lost() end
      local high, low = parts(row[3])
      row[3] = text(minus(high, low, parts(scopes[4 * i] ~= '' and known[3] or known[2])))
    end
  end
  local before = is_known and known[5] or '\n'
  local counted = before
  for i = 1, #spent / 3 do
    local window = spent[3 * i - 2]
    if untils[#scopes / 4 + i] and not string.find(before, '\n' .. window .. '\n', 1, true) then
      local row = row_of(rows, window, spent[3 * i - 1])
      if not row then return lost() end
      if tonumber(number) > tonumber(row[1]) then
        local high, low = parts(row[2])
        row[2] = text(plus(high, low, parts(spent[3 * i])))
        counted = counted .. window .. '\n'
      end
    end
  end
  for _, row in ipairs(rows) do
    call('HSET', base .. 'w:' .. row[4], 's' .. row[5], row[2] or '0', 'h' .. row[5], row[3] or '0')
  end
  call('HSET', record, 'epoch', epoch, 'counted', counted)
  call('PEXPIRE', record, ENDED_KEPT)
end

function act.overdue(limit)
  if not standing({}) then return {} end
  if not call('ZSCORE', open, '') then
    lost()
    return {}
  end
  local late = {}
  for _, id in ipairs(call('ZRANGEBYSCORE', open, '-inf', now(), 'LIMIT', 0, limit)) do
    local amount = call('HGET', base .. 'r:' .. id, 'amount')
    if not amount then
      lost()
      return {}
    end
    late[#late + 1] = id
    late[#late + 1] = amount
  end
  return late
end

function act.balance(window, account)
  local epoch, untils = standing({'w:' .. window})
  if not epoch or not untils[1] then return {} end
  local all = balances({window, account, '', ''})
  if not all then
    lost()
    return {}
  end
  return answer({}, all)
end

-- Drop what an earlier epoch has left.
local function drop()
  for _, field in ipairs(call('HKEYS', money)) do
    if string.sub(field, 1, 2) == 'w:' then call('UNLINK', base .. field) end
  end
  for _, id in ipairs(call('ZRANGE', open, 0, -1)) do call('UNLINK', base .. 'r:' .. id) end
  call('UNLINK', open, money)
end

local function drop_over(time)
  local all = call('HGETALL', money)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 2) == 'w:' and tonumber(all[i + 1]) <= time then
      call('HDEL', money, all[i])
      call('UNLINK', base .. all[i])
    end
  end
end

-- `windows`: window and end, ms (0: never). A window that is there stays as it is.
local function add(number, windows, spent, time)
  local is_new = {}
  for i = 1, #windows, 2 do
    local window, till = windows[i], windows[i + 1]
    if call('HEXISTS', money, 'w:' .. window) == 0 then
      is_new[window] = true
      till = till == 0 and EVER or math.max(till, time) + WINDOW_KEPT
      call('HSET', money, 'w:' .. window, till)
      call('DEL', base .. 'w:' .. window)
      call('HSET', base .. 'w:' .. window, 'n', number)
      if till < EVER then call('PEXPIRE', base .. 'w:' .. window, till - time) end
    end
  end
  for i = 1, #spent, 3 do
    if is_new[spent[i]] then call('HSET', base .. 'w:' .. spent[i], 's' .. spent[i + 1], spent[i + 2]) end
  end
end

function act.claim(epoch)
  local term = string.match(call('INFO', 'replication'), 'master_replid:%x+')
  call('SET', base .. 'claim:' .. epoch, term, 'PX', 60000)
end

function act.add(epoch, number, windows, spent)
  if standing({}) ~= epoch then return 0 end
  local time = now()
  drop_over(time)
  add(number, cmsgpack.unpack(windows), cmsgpack.unpack(spent), time)
  return 1
end

function act.fill(epoch, number, windows, spent, reservations)
  local claim = base .. 'claim:' .. epoch
  local term, before, time = call('GET', claim), call('HGET', money, 'epoch'), now()
  if not term or not is_of_this_term(term) then return 0 end
  call('DEL', claim)
  if before and tonumber(before) >= tonumber(epoch) then return 0 end
  drop()
  call('HSET', money, 'epoch', epoch, 'term', term)
  call('ZADD', open, EVER, '')
  add(number, cmsgpack.unpack(windows), cmsgpack.unpack(spent), time)
  for _, one in ipairs(cmsgpack.unpack(reservations)) do
    local id, scopes, amount, tokens, deadline = one[1], one[2], one[3], one[4], time + one[5]
    local _, untils = standing(windows_of(scopes, 4))
    begin(id, epoch, cmsgpack.pack(scopes), amount, tokens, deadline)
    weigh(scopes, balances(scopes), untils, plus, amount, tokens, deadline, time)
  end
  return 1
end

return act[ARGV[1]](unpack(ARGV, 3))
