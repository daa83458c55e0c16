--[[ seek: finds the receipts of takes whose replies were lost. Writes nothing; `settle` gives back what they charged.

    KEYS[1] event stream
    ARGV[1] stream id to begin at   ARGV[2…] request ids
  returns the receipts that exist; a request without one was not charged ]]
local PAGE = 1000

local stream = KEYS[1]
local wanted, missing = {}, #ARGV - 1
for i = 2, #ARGV do wanted[ARGV[i]] = true end
local receipts, from = {}, ARGV[1]
while missing > 0 do
  local page = redis.call('XRANGE', stream, from, '+', 'COUNT', PAGE)
  for _, entry in ipairs(page) do
    local text = entry[2][2]
    local id = string.match(text, '^t (%S+)')
    if id and wanted[id] then
      wanted[id] = nil
      missing = missing - 1
      receipts[#receipts + 1] = text
    end
  end
  if #page < PAGE then break end
  from = '(' .. page[#page][1]
end
return receipts
