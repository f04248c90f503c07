-- What wrk sends and reports. Usage: wrk -s load.lua URL -- BODY_FILE FIRST_NUMBER COUNTED_STATUS
--
-- BODY_FILE holds one request body a line. The single line of a one-line file may contain 000000000000, which becomes the
-- number of the request, starting at FIRST_NUMBER, so that every question is new. The lines of a longer file are sent in
-- turn, from line FIRST_NUMBER on. With COUNTED_STATUS above 0 the answers of that status are counted; it costs wrk time.

local MARK = "000000000000"
local threads = {}
local head, tail, fixed, lines
local number = 0

wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
counted = 0

function setup(thread)
  threads[#threads + 1] = thread
end

function init(args)
  lines = {}
  for line in io.lines(args[1]) do
    lines[#lines + 1] = line
  end
  number = tonumber(args[2])
  local wanted = tonumber(args[3])
  if wanted > 0 then
    response = function(status)
      if status == wanted then
        counted = counted + 1
      end
    end
  end
  if #lines == 1 then
    fixed = wrk.format(nil, nil, nil, lines[1])
    local first, last = fixed:find(MARK, 1, true)
    if first then
      head, tail = fixed:sub(1, first - 1), fixed:sub(last + 1)
    end
  end
end

function request()
  if head then
    number = number + 1
    return head .. string.format("%012d", number) .. tail
  end
  if fixed then
    return fixed
  end
  number = number + 1
  return wrk.format(nil, nil, nil, lines[(number - 1) % #lines + 1])
end

function done(summary, latency)
  local found = 0
  for _, thread in ipairs(threads) do
    found = found + thread:get("counted")
  end
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"refused":%d,"broken":%d,"counted":%d,"p50_us":%d,"p95_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    found, latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
