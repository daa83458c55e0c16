--[[ seed: put back counters that Redis lost. Fills only what is absent, so that no number of seeders counts twice.

    KEYS[1] organization hash
    ARGV    field, units, … with fields `used:<start>:<meter>`, `burnt:…`, `over:…` and `grant:<id>`
  returns the number of fields that were filled ]]
local filled = 0
for i = 1, #ARGV, 2 do
  filled = filled + redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
end
return filled
