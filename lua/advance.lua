--[[ advance: makes a stream continue after the last id that Postgres has, whatever the clock of this Redis says.

    KEYS[1] event stream   KEYS[2] optional: the shard's generation
    ARGV[1] the shard's watermark, `ms-seq`   ARGV[2] with KEYS[2], the generation that it must have
  returns the last id that the stream had before, '' where there was no stream; MEMORY_LOST where the generation is another
          one: then nothing changed
  A new stream, or one that was set back, would otherwise use ids that the writer regards as written already. ]]
--@constants MEMORY_LOST
local stream, watermark = KEYS[1], ARGV[1]
if KEYS[2] and redis.call('GET', KEYS[2]) ~= ARGV[2] then return MEMORY_LOST end
local function less(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  a_ms, b_ms = tonumber(a_ms), tonumber(b_ms)
  return a_ms < b_ms or (a_ms == b_ms and tonumber(a_seq) < tonumber(b_seq))
end
if redis.call('EXISTS', stream) == 0 then
  if watermark ~= '0-0' then
    redis.call('XADD', stream, watermark, 'e', '')
    redis.call('XDEL', stream, watermark)
  end
  return ''
end
local last, info = '0-0', redis.call('XINFO', 'STREAM', stream)
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then last = info[i + 1] end
end
if less(last, watermark) then redis.call('XSETID', stream, watermark) end
return last
