--[[ lapse: ends the leases of organizations of a shard that has lost its memory. It may have forgotten that it lowered.

    KEYS organization hashes
  returns how many had a lease
  Their counters and ceilings stay. Nothing of them is admitted until they have a lease of the new epoch. ]]
--@constants HEAD_BYTES HEAD_LEASED_BYTES LEASE
local ended, never_s = 0, 0
for _, hash in ipairs(KEYS) do
  local head = redis.call('HGET', hash, 'e')
  if head and #head >= HEAD_LEASED_BYTES then
    local lapsed = string.sub(head, 1, HEAD_BYTES) .. struct.pack(LEASE, never_s, never_s) .. string.sub(head, HEAD_LEASED_BYTES + 1)
    redis.call('HSET', hash, 'e', lapsed)
    ended = ended + 1
  end
end
return ended
