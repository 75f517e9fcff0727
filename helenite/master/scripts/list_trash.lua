-- prelude: script tree content
-- Items of the trash, youngest first. Answers id, item, id, item, ...

local PAGE = 200
local READ_MAX = 20000 -- items looked at for one person's; about 40 ms

return run(function()
  local floor = tonumber(call('GET', P .. 'trash_floor') or 0)
  local found = {}
  for first = 0, READ_MAX - 1, PAGE do
    local ids = call('ZREVRANGE', P .. 'trash_at', first, first + PAGE - 1)
    if #ids == 0 then return {'', found} end
    for i, stored in ipairs(call('HMGET', P .. 'trash', unpack(ids))) do
      if tonumber(ids[i]) <= floor or #found >= 2 * request.limit then return {'', found} end
      if request.principal == '' or cmsgpack.unpack(stored).principal == request.principal then
        found[#found + 1] = ids[i]
        found[#found + 1] = stored
      end
    end
  end
  return {'', found}
end)
