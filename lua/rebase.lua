--[[ rebase: move counters by the drift that was found, once, while traffic goes on.

    KEYS[1] organization hash   KEYS[2] the shard's generation
    ARGV[1] generation, and ARGV[2] repairs of this organization, as they were when the drift was read
    ARGV[3…] field, units to add
  returns 1, or 0 where somebody else repaired or rebuilt the organization since: nothing changed
  Drift does not change with traffic, so it is added, not set. No event is appended: the events are what it is measured by. ]]
local hash = KEYS[1]
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
local read = redis.call('HMGET', hash, 'e', 'repairs')
if not read[1] or (read[2] or '0') ~= ARGV[2] then return 0 end
for i = 3, #ARGV, 2 do redis.call('HINCRBY', hash, ARGV[i], ARGV[i + 1]) end
redis.call('HINCRBY', hash, 'repairs', 1)
return 1
