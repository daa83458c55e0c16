--[[ append: put events back that Redis lost and a gateway still had: the charges of requests that were forwarded.

    KEYS[1] organization hash   KEYS[2] event stream
    ARGV[1] number of events, then each event, then field, units, …: what they add to the counters
  Counters of an organization that is not published are left alone: they are made of the events when it is.
  Who calls it has made sure that the events are neither in the stream nor in Postgres. ]]
local hash, stream, events = KEYS[1], KEYS[2], tonumber(ARGV[1])
for i = 2, events + 1 do redis.call('XADD', stream, '*', 'e', ARGV[i]) end
if redis.call('HEXISTS', hash, 'e') == 1 then
  for i = events + 2, #ARGV, 2 do redis.call('HINCRBY', hash, ARGV[i], ARGV[i + 1]) end
end
return events
