--[[ guess: a leaky bucket of tries, of one address or at one secret.
  The moments are those of the caller's clock, since a test moves it; what expires does by the clock of Redis.

    KEYS[1] bucket: a string, the moment in ms at which it is empty
    ARGV[1] now, ms   ARGV[2] tries that it holds   ARGV[3] ms until one has leaked out
    ARGV[4] 1: a try goes into it, if there is room; 0: only asks
  returns the ms until there is room for a try, 0 where there is ]]
local bucket = KEYS[1]
local now, tries, each, adds = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local empty_at = math.max(tonumber(redis.call('GET', bucket) or now), now)
-- A clock that was set back must not keep anybody out for longer than a full bucket does.
empty_at = math.min(empty_at, now + tries * each)
local wait = empty_at - now - (tries - 1) * each
if wait > 0 then return wait end
if adds then
  empty_at = empty_at + each
  redis.call('SET', bucket, string.format('%.0f', empty_at), 'PX', empty_at - now)
end
return 0
