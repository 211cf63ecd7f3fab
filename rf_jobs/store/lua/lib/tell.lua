local live -- whether anybody watches any job; asked once

-- Tells those who watch these jobs live that something has changed. What, they look up themselves.
local function tell(ids, what)
  if live == nil then live = redis.call('EXISTS', P .. 'live') == 1 end
  if not live then return end
  for from = 1, #ids, 1000 do
    local watched = redis.call('ZMSCORE', P .. 'live', unpack(ids, from, math.min(from + 999, #ids)))
    for i = 1, #watched do
      if watched[i] then redis.call('PUBLISH', P .. 'live:' .. ids[from + i - 1], what) end
    end
  end
end
