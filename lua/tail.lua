--[[ tail: reads counters of several organizations, and the events that are not in Postgres yet, at one moment.

    KEYS[1] event stream     KEYS[2] the shard's generation     KEYS[3…] organization hashes of the shard
    ARGV[1] the watermark: the last entry that Postgres has counted     ARGV[2] the most entries to return
  returns {last id of the stream, generation or '', {event, …}, {field, value, …} of each hash}
          {last id of the stream, generation or ''} where more entries than that are not in Postgres yet
  Writes nothing. Drift is the difference between the counters and the sum of what Postgres has counted and these
  events. One script changes a counter and appends its event, so traffic causes no drift. The generation says of which
  server all this is: after a failover, one that was put aside may still answer. ]]
local stream, watermark, entries_max = KEYS[1], ARGV[1], tonumber(ARGV[2])
local last = '0-0'
if redis.call('EXISTS', stream) == 1 then
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
end
local entries, events = redis.call('XRANGE', stream, '(' .. watermark, '+', 'COUNT', entries_max + 1), {}
local generation = redis.call('GET', KEYS[2]) or ''
if #entries > entries_max then return {last, generation} end
for i, entry in ipairs(entries) do events[i] = entry[2] end
local reply = {last, generation, events}
for i = 3, #KEYS do reply[i + 1] = redis.call('HGETALL', KEYS[i]) end
return reply
