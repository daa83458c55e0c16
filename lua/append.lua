--[[ append: puts events back that Redis lost and a gateway still had: the charges of requests that were forwarded.

    KEYS[1] organization hash   KEYS[2] event stream
    ARGV[1] number of events; then each event; then field, units, …: what the events add to the counters
  returns the number of events
  Counters of an organization that is not published stay as they are: its publication computes them from the events.
  The caller has checked that the events are neither in the stream nor in Postgres. ]]
local hash, stream, events = KEYS[1], KEYS[2], tonumber(ARGV[1])
for i = 2, events + 1 do redis.call('XADD', stream, '*', 'e', ARGV[i]) end
if redis.call('HEXISTS', hash, 'e') == 1 then
  for i = events + 2, #ARGV, 2 do redis.call('HINCRBY', hash, ARGV[i], ARGV[i + 1]) end
end
return events
