--[[ tail: counters of several organizations and the events that are not in Postgres yet, read in one moment.

    KEYS[1] event stream     KEYS[2…] organization hashes of its shard
    ARGV[1] the watermark: the last entry that Postgres has counted     ARGV[2] entries that may be returned
  returns {last id of the stream, {event, …}, {field, value, …} of each hash}
          {last id of the stream} where more entries than that are still to be written
  Writes nothing. Drift is what the counters are above watermark and events: both move in the same scripts, so no
  traffic can come between them. ]]
local stream, watermark, most = KEYS[1], ARGV[1], tonumber(ARGV[2])
local last = '0-0'
if redis.call('EXISTS', stream) == 1 then
  local about = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' then last = about[i + 1] end
  end
end
local entries, events = redis.call('XRANGE', stream, '(' .. watermark, '+', 'COUNT', most + 1), {}
if #entries > most then return {last} end
for i, entry in ipairs(entries) do events[i] = entry[2] end
local reply = {last, events}
for i = 2, #KEYS do reply[i + 1] = redis.call('HGETALL', KEYS[i]) end
return reply
