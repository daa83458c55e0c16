--[[ seed: puts back counters that Redis lost. Fills only absent fields, so that several calls do not count twice.

    KEYS[1] organization hash   KEYS[2] optional: the shard's generation
    ARGV    field, units, … with fields `used:<start>:<meter>`, `burnt:…`, `over:…` and `grant:<id>`; with KEYS[2] the
            last argument is the generation in which the counters were computed
  returns the number of fields that were filled; MEMORY_LOST where Redis has lost its memory since: then
          nothing changed ]]
--@constants MEMORY_LOST
local hash = KEYS[1]
if KEYS[2] and redis.call('GET', KEYS[2]) ~= table.remove(ARGV) then return MEMORY_LOST end
local filled = 0
for i = 1, #ARGV, 2 do
  filled = filled + redis.call('HSETNX', hash, ARGV[i], ARGV[i + 1])
end
return filled
