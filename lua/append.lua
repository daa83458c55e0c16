--[[ append: puts events back that Redis lost and a gateway still had: the charges of requests that were forwarded.

    KEYS[1] organization hash   KEYS[2] event stream   KEYS[3] optional: the shard's generation
    ARGV[1] number of events; then each event; then field, units, …: what the events add to the counters; none where
            the counters have them; with KEYS[3] the last argument is the generation in which they were looked for
  returns the number of events; MEMORY_LOST where the generation is another one: then nothing changed. A call that
          nobody waits for any more, and that comes late, would append what a later recovery has found missing, too
  Counters of an organization that is not published stay as they are: its publication computes them from the events.
  Of a principal with quotas of its own, the windows that Redis knows get what was charged in them.
  The caller has checked that the events are neither in the stream nor in Postgres. ]]
--@constants MEMORY_LOST
--@include parts/windows.lua
local generation = KEYS[3] and table.remove(ARGV)
if generation and redis.call('GET', KEYS[3]) ~= generation then return MEMORY_LOST end
local hash, stream, events = KEYS[1], KEYS[2], tonumber(ARGV[1])
for i = 2, events + 1 do redis.call('XADD', stream, '*', 'e', ARGV[i]) end
if #ARGV == events + 1 or redis.call('HEXISTS', hash, 'e') == 0 then return events end
for i = events + 2, #ARGV, 2 do redis.call('HINCRBY', hash, ARGV[i], ARGV[i + 1]) end
for i = 2, events + 1 do
  local path, start_s, at_s, charges = string.match(ARGV[i], '^%l %S+ (%S+) (%d+)@(%d+) (.+)$')
  for node in string.gmatch(path or '', '/([^/]+)') do
    for meter, units in string.gmatch(' ' .. charges, ' ([%l%d_]+):(-?%d+)') do
      local counter = 'n:' .. node .. ':' .. meter
      local held = redis.call('HGET', hash, counter)
      if held then
        redis.call('HSET', hash, counter, windows_after(held, tonumber(start_s), tonumber(at_s), tonumber(units)))
      end
    end
  end
end
return events
