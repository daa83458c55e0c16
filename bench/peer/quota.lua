--[[ The peer: what a vendor would write in nginx, Lua and Redis to do what the gateway does with a request.

  Debian's lua-nginx-redis and resty.core, connections to Redis from a pool, the same `take` as the gateway. Whatever a
  vendor who knows these tools would do to save time is done: a token is verified once (HMAC of the libcrypto that nginx
  is linked to) and then remembered for each worker, an organization's keys are made once, the policy's text is made once
  for each period, replies are read through the FFI. ]]

local ffi = require "ffi"
local cjson = require "cjson.safe"
local lrucache = require "resty.lrucache"
local redis = require "nginx.redis"

ffi.cdef [[
  const void *EVP_sha256(void);
  unsigned char *HMAC(const void *md, const void *key, int key_bytes, const char *data, size_t data_bytes,
                      unsigned char *digest, unsigned int *digest_bytes);
]]

local C, ffi_copy, ffi_string, cast = ffi.C, ffi.copy, ffi.string, ffi.cast
local byte, find, format, sub = string.byte, string.find, string.format, string.sub
local floor = math.floor
local ngx, var, header = ngx, ngx.var, ngx.header

local TIMEOUT_MS, IDLE_MS, POOL = 2000, 60000, 1024
local HEAD_BYTES, BALANCE_BYTES = 34, 24 -- of take's reply: lua/README.md
local METER, COST, SHARDS = "api_calls", 1, 32

local settings = {}
local claims_of = lrucache.new(65536)
local keys_of = lrucache.new(16384)
local numbers = ffi.new("double[7]") -- now us, period start, end, detail, limit, remaining, overage
local digest, digest_bytes = ffi.new("unsigned char[32]"), ffi.new("unsigned int[1]")

local function base64url(text)
  text = text:gsub("-", "+"):gsub("_", "/")
  return ngx.decode_base64(text .. string.rep("=", -#text % 4))
end

local function problem(status, kind, title, members)
  members = members or {}
  members.type, members.title, members.status, members.instance = kind, title, status, var.request_id
  ngx.status = status
  header["Content-Type"] = "application/problem+json"
  ngx.print(cjson.encode(members))
  return ngx.exit(status)
end

local function unauthorized(reason)
  header["WWW-Authenticate"] = 'Bearer error="invalid_token"'
  return problem(401, "urn:peer:problem:token-refused", reason)
end

-- The claims of a bearer token signed with HS256 (RFC 7515, RFC 7519), or nil and why not.
local function verify(authorization)
  local _, _, signed, payload, signature = find(authorization, "^[Bb]earer ([%w_-]+%.([%w_-]+))%.([%w_-]+)$")
  if not signed then return nil, "not a bearer token" end
  local head = cjson.decode(base64url(sub(signed, 1, find(signed, ".", 1, true) - 1)))
  if not head or head.alg ~= "HS256" then return nil, "not the algorithm" end
  C.HMAC(C.EVP_sha256(), settings.secret, #settings.secret, signed, #signed, digest, digest_bytes)
  if base64url(signature) ~= ffi_string(digest, 32) then return nil, "not the signature" end
  local claims = cjson.decode(base64url(payload))
  if not claims or claims.iss ~= settings.issuer then return nil, "not the issuer" end
  if type(claims.exp) ~= "number" or claims.exp <= ngx.time() then return nil, "expired" end
  if type(claims.org_id) ~= "string" then return nil, "names no organization" end
  return claims
end

local function keys(org)
  local names = keys_of:get(org)
  if not names then
    local tag = format("qg:{q%02d}", ngx.crc32_long(org) % SHARDS)
    names = { tag .. ":org:" .. org, tag .. ":events" }
    keys_of:set(org, names)
  end
  return names
end

local policy_limit, policy_start, policy
local function policy_text(limit, first, last)
  if limit ~= policy_limit or first ~= policy_start then
    policy_limit, policy_start = limit, first
    policy = format('"%s";q=%.0f;w=%.0f', METER, limit, last - first)
  end
  return policy
end

-- One reply of take, or nil and the error.
local function take(org)
  local client = redis:new()
  client:set_timeout(TIMEOUT_MS)
  local ok, err = client:connect("127.0.0.1", settings.redis_port)
  if not ok then return nil, err end
  local k = keys(org)
  local replies
  replies, err = client:evalsha(settings.sha, 2, k[1], k[2], var.request_id, org, "", 1, METER, COST)
  if not replies and err and find(err, "NOSCRIPT", 1, true) then
    replies, err = client:eval(settings.source, 2, k[1], k[2], var.request_id, org, "", 1, METER, COST)
  end
  if not replies then
    client:close()
    return nil, err
  end
  client:set_keepalive(IDLE_MS, POOL)
  local reply = replies[1]
  if type(reply) ~= "string" then return nil, reply and reply[2] end
  return reply
end

local function read_numbers(reply)
  ffi_copy(numbers, cast("const char *", reply) + 2, #reply < HEAD_BYTES + BALANCE_BYTES and HEAD_BYTES - 2 or 56)
  return tonumber(numbers[0]), tonumber(numbers[1]), tonumber(numbers[2])
end

local function rate_fields(now_us, first, last)
  local seconds_left = floor(last - now_us / 1000000) + 1
  header["RateLimit-Policy"] = policy_text(tonumber(numbers[4]), first, last)
  header["RateLimit"] = format('"%s";r=%.0f;t=%d', METER, tonumber(numbers[5]), seconds_left)
  return seconds_left
end

local _M = {}

function _M.setup(given)
  settings = given
  local file = assert(io.open(given.script_path, "rb"))
  settings.source = file:read("*a")
  file:close()
end

-- Called for each request, before it is forwarded.
function _M.check()
  local authorization = var.http_authorization
  if not authorization then return unauthorized("token missing") end
  local claims, err = claims_of:get(authorization), nil
  if not claims then
    claims, err = verify(authorization)
    if not claims then return unauthorized(err) end
    claims_of:set(authorization, claims, claims.exp - ngx.time())
  end
  local org = claims.org_id
  local reply
  reply, err = take(org)
  if not reply then
    ngx.log(ngx.ERR, "take failed: ", err)
    header["Retry-After"] = 1
    return problem(503, "urn:peer:problem:ledger-unavailable", "The quota could not be checked")
  end
  local verdict = byte(reply)
  local now_us, first, last = read_numbers(reply)
  if verdict == 1 then
    rate_fields(now_us, first, last)
    var.quota_org = org
    return
  end
  if verdict == 2 then
    local seconds_left = rate_fields(now_us, first, last)
    header["Retry-After"] = seconds_left
    return problem(429, "https://iana.org/assignments/http-problem-types#quota-exceeded", "Quota exceeded", {
      ["violated-policies"] = { METER }, limit = tonumber(numbers[4]), remaining = tonumber(numbers[5]), cost = COST,
      reset_seconds = seconds_left,
    })
  end
  if verdict == 3 then
    header["Retry-After"] = math.max(1, math.ceil(tonumber(numbers[3]) / 1000000))
    return problem(429, "urn:peer:problem:rate-limited", "Too many requests at once")
  end
  if verdict == 5 then return problem(403, "urn:peer:problem:meter-not-in-plan", "Not part of the plan") end
  return problem(402, "urn:peer:problem:no-entitlement", "No plan in force")
end

return _M
