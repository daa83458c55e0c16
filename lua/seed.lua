--[[ seed: put back counters that Redis lost. Fills only what is absent, so that no number of seeders counts twice.

    KEYS[1] organization hash   KEYS[2] the shard's generation, where it matters
    ARGV    field, units, … with fields `used:<start>:<meter>`, `burnt:…`, `over:…` and `grant:<id>`; with KEYS[2] last
            the generation that the counters were computed in
  returns the number of fields that were filled; MEMORY_LOST where Redis has lost its memory since: nothing changed ]]
--@constants MEMORY_LOST
if KEYS[2] and redis.call('GET', KEYS[2]) ~= table.remove(ARGV) then return MEMORY_LOST end
local filled = 0
for i = 1, #ARGV, 2 do
  filled = filled + redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
end
return filled
