--[[ advance: have a stream continue after an id that Postgres has, whatever the clock of this Redis says.

    KEYS[1] event stream   ARGV[1] the shard's watermark, `ms-seq`
  returns the stream's last id as it was, '' where there was no stream
  A stream that begins anew, or went back, would otherwise give ids that the writer takes for written. ]]
local stream, id = KEYS[1], ARGV[1]
local function less(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  a_ms, b_ms = tonumber(a_ms), tonumber(b_ms)
  return a_ms < b_ms or (a_ms == b_ms and tonumber(a_seq) < tonumber(b_seq))
end
if redis.call('EXISTS', stream) == 0 then
  if id ~= '0-0' then
    redis.call('XADD', stream, id, 'e', '')
    redis.call('XDEL', stream, id)
  end
  return ''
end
local last, about = '0-0', redis.call('XINFO', 'STREAM', stream)
for i = 1, #about, 2 do
  if about[i] == 'last-generated-id' then last = about[i + 1] end
end
if less(last, id) then redis.call('XSETID', stream, id) end
return last
