--[[ mark_index: says that a shard's index of API keys is complete, unless Redis has lost its memory since.

    KEYS[1] the shard's marker   KEYS[2] its generation
    ARGV[1] the generation as it was before the index was filled
  returns 1, or 0 where it is another one now: then nothing changed ]]
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
