--[[ lapse: ends the leases of organizations of a shard that has lost its memory. It may have forgotten that it lowered.

    KEYS organization hashes; before them, where ARGV[1] is given, the shard's generation
    ARGV[1] optional: the generation that the shard must have
  returns how many had a lease; MEMORY_LOST where the generation is another one: then nothing changed
  Their counters and ceilings stay. Nothing of them is admitted until they have a lease of the new epoch. ]]
--@constants HEAD_BYTES HEAD_LEASED_BYTES LEASE MEMORY_LOST
if ARGV[1] and redis.call('GET', KEYS[1]) ~= ARGV[1] then return MEMORY_LOST end
local ended, never_s = 0, 0
for i = ARGV[1] and 2 or 1, #KEYS do
  local hash = KEYS[i]
  local head = redis.call('HGET', hash, 'e')
  if head and #head >= HEAD_LEASED_BYTES then
    local lapsed = string.sub(head, 1, HEAD_BYTES) .. struct.pack(LEASE, never_s, never_s) .. string.sub(head, HEAD_LEASED_BYTES + 1)
    redis.call('HSET', hash, 'e', lapsed)
    ended = ended + 1
  end
end
return ended
