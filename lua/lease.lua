--[[ lease: makes a region enforce what its home has reserved for it, if that is newer than what it enforces.

    KEYS[1] organization hash   KEYS[2] the shard's generation
    ARGV[1] generation in which the home was asked
    ARGV[2] returns that the home knew   ARGV[3] number of the lease   ARGV[4] the version that it is for
    ARGV[5] the periods and LEASE, as they are in the head
    ARGV[6...] of each meter `m:<meter>`, LIMIT and ELSEWHERE; of each meter with grants `g:<meter>` and their list
  returns INSTALLED; NOT_NEWER where the region enforces a later one, has lowered since, or is published in another
          version; MEMORY_LOST where Redis has lost its memory since. Only INSTALLED has changed anything
  invariant: what is reserved for a region at its home is never less than what is enforced here. ]]
--@constants HEAD INSTALLED NOT_NEWER MEMORY_LOST LEASE_BEGINS HEAD_LEASED_BYTES
local hash, returns, number = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return MEMORY_LOST end
local head = redis.call('HGET', hash, 'e')
if not head or #head < HEAD_LEASED_BYTES or struct.unpack(HEAD, head) ~= tonumber(ARGV[4]) then return NOT_NEWER end
local lowered, installed = string.match(redis.call('HGET', hash, 'lease') or '0 0', '^(%d+) (%d+)$')
if tonumber(lowered) ~= returns or tonumber(installed) >= number then return NOT_NEWER end
redis.call('HSET', hash, 'lease', lowered .. ' ' .. ARGV[3],
  'e', string.sub(head, 1, LEASE_BEGINS) .. ARGV[5] .. string.sub(head, HEAD_LEASED_BYTES + 1), unpack(ARGV, 6))
return INSTALLED
