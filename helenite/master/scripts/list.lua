-- prelude: script tree locks content view
-- A page of a directory. A directory of up to WHOLE_MAX entries comes whole, at one moment. Extents that overflowed are
-- left out: with them a page could exceed any message (Entry.lacks_extents).

local WHOLE_MAX = 4096 -- about 600 KB and 4 ms; beyond that, pages keep Redis answering others
local TOTALS_PAGE = 1000 -- arguments of one HMGET

-- Give the directories of a page their subtree's sequence as revision.
local function put_sequences(page)
  local ids, places = {}, {}
  for i = 2, #page, 2 do
    if is_directory(page[i]) then
      ids[#ids + 1], places[#places + 1] = id_of(page[i]), i
    end
  end
  for first = 1, #ids, TOTALS_PAGE do
    local last = math.min(first + TOTALS_PAGE - 1, #ids)
    for i, totals in ipairs(call('HMGET', P .. 'q', unpack(ids, first, last))) do
      local at = places[first + i - 1]
      if totals then page[at] = sub(page[at], 1, 10) .. sub(totals, 1, 8) .. sub(page[at], 19) end
    end
  end
end

local function locks_of_page(directory_id, ids, now)
  local inherited, own = {}, {}
  if not request.with_locks or lock_count() == 0 then return inherited, own end
  inherited = add_infinite({}, joined(ids, {directory_id}), now)
  for _, lock in ipairs(locks_beneath(directory_id, now)) do
    own[lock.entry_id] = own[lock.entry_id] or {}
    table.insert(own[lock.entry_id], lock)
  end
  return inherited, own
end

local function extras_of_page(page, directory_id, ids, now)
  local extras = {}
  if not (request.with_locations or request.with_properties or request.with_locks) then return extras end
  local inherited, own = locks_of_page(directory_id, ids, now)
  for i = 2, #page, 2 do
    local record = page[i]
    local locks = inherited
    if own[id_of(record)] then locks = joined(own[id_of(record)], inherited) end
    local extents = is_directory(record) and '' or sub(record, HEADER_BYTES + 1)
    extras[#extras + 1] = pack_extra(record, extents, locks)
  end
  return extras
end

return run(function()
  local now = now_ms()
  local place = resolve(request.names)
  must_exist(place)
  if not is_directory(place.record) then fail('wrong_kind', place.path .. ' is a file') end
  local id = id_of(place.record)
  local key = P .. 'd:' .. id
  local page, cursor
  if request.cursor == '0' and call('HLEN', key) <= WHOLE_MAX then
    page, cursor = call('HGETALL', key), '0'
  else
    local scanned = call('HSCAN', key, request.cursor, 'COUNT', request.limit)
    cursor, page = scanned[1], scanned[2]
  end
  put_sequences(page)
  local locks = {}
  if request.with_locks and lock_count() > 0 then locks = covering_locks(id, place.ids, now) end
  local directory = {place.name, handed_out(place.record), pack_extra(place.record, '', locks)}
  return {'', directory, cursor, page, extras_of_page(page, id, place.ids, now)}
end)
