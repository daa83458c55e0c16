--[[ renew: extends the permits of requests that are still under way.

    KEYS[1] permits of an organization   ARGV[1] seconds from now   ARGV[2…] request ids
  returns the number of permits that had expired, and are held again ]]
local permits = KEYS[1]
local until_s, words = redis.call('TIME')[1] + ARGV[1], {}
for i = 2, #ARGV do
  words[#words + 1] = until_s
  words[#words + 1] = ARGV[i]
end
return redis.call('ZADD', permits, unpack(words))
