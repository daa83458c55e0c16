--[[ rebase: corrects counters by their drift, once, while traffic goes on.

    KEYS[1] organization hash   KEYS[2] the shard's generation
    ARGV[1] generation, and ARGV[2] repairs of this organization, both as they were when the drift was measured
    ARGV[3…] field, units to add
  returns 1, or 0 where somebody else has repaired or rebuilt the organization since: then nothing changed
  Traffic does not change drift, so it is added and not set. No event is appended: drift is measured against events. ]]
local hash, generation_key, generation, repairs = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if (redis.call('GET', generation_key) or '') ~= generation then return 0 end
local read = redis.call('HMGET', hash, 'e', 'repairs')
if not read[1] or (read[2] or '0') ~= repairs then return 0 end
for i = 3, #ARGV, 2 do redis.call('HINCRBY', hash, ARGV[i], ARGV[i + 1]) end
redis.call('HINCRBY', hash, 'repairs', 1)
return 1
