-- Sends what bench/traffic.py describes, or one head all the time, and says in one line what a run came to. For
-- `bench/harness.py`.
--
--   BENCH_TRAFFIC  the file of the requests' parts; without it wrk sends what its options say
--   BENCH_FIRST    number of the first request
--   BENCH_SENT     where the first requests are written, to be compared with what Traffic.request makes

local SENT = 1000

local function split(text, separator)
  local parts = {}
  for part in text:gmatch("[^" .. separator .. "]+") do parts[#parts + 1] = part end
  return parts
end

-- A shape as a list in which only the slots' values are replaced from request to request.
local function pieces(shape)
  local list, at = {}, 1
  for text, slot, next_at in shape:gmatch("(.-)%%%((%w+)%)b()") do
    list[#list + 1], list[#list + 2] = text, ""
    list[slot], at = #list, next_at
  end
  list[#list + 1] = shape:sub(at)
  return list
end

-- Of the thread that sends: the main one, which reads this script too, needs no requests.
init = function()
  local path = os.getenv("BENCH_TRAFFIC")
  if not path then return end
  local file = assert(io.open(path, "rb"))
  local parts = split(file:read("*a"), "\30")
  file:close()
  local words, tokens, shapes = split(parts[1], "\31"), split(parts[2], "\31"), split(parts[3], "\31")
  for i = 1, #shapes do shapes[i] = pieces(shapes[i]) end
  local first = tonumber(os.getenv("BENCH_FIRST"))
  local n, n_words, n_tokens, n_shapes = first, #words, #tokens, #shapes
  local concat, floor = table.concat, math.floor

  request = function()
    local shape, low, high = shapes[n % n_shapes + 1], words[n % n_words + 1], words[floor(n / n_words) % n_words + 1]
    shape[shape.id], shape[shape.cursor], shape[shape.trace], shape[shape.span] = low, high, high .. low, low
    shape[shape.token] = tokens[(n + floor(n / n_tokens)) % n_tokens + 1]
    n = n + 1
    return concat(shape)
  end

  local sent = os.getenv("BENCH_SENT")
  if sent then
    file = assert(io.open(sent, "wb"))
    for _ = 1, SENT do file:write(request()) end
    file:close()
    n = first
  end
end

done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'result {"requests":%d,"duration_us":%d,"not_2xx":%d,"socket_errors":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
