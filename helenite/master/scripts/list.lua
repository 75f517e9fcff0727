-- prelude: script tree locks content view
-- A page of a directory. A directory of up to WHOLE_MAX entries comes whole, at one moment. Without locations the extents
-- are left out, and always those that overflowed: with them a page could exceed any message (Entry.lacks_extents).

local WHOLE_MAX = 4096 -- about 600 KB and 4 ms; beyond that, pages keep Redis answering others

-- Give the directories of a page their subtree's sequence as revision.
local function put_sequences(page)
  local ids, places = {}, {}
  for i = 2, #page, 2 do
    if is_directory(page[i]) then
      ids[#ids + 1], places[#places + 1] = id_of(page[i]), i
    end
  end
  local done = 0
  in_groups(ids, function(...)
    for _, totals in ipairs(call('HMGET', P .. 'q', ...)) do
      done = done + 1
      local at = places[done]
      if totals then page[at] = sub(page[at], 1, 10) .. sub(totals, 1, 8) .. sub(page[at], 19) end
    end
  end)
end

local function leave_out_extents(page)
  for i = 2, #page, 2 do page[i] = head_of(page[i]) end
end

-- Own locks by entry. What its members inherit comes once, with the directory: all of it beside each of thousands of
-- entries could exceed any message.
local function locks_of_page(directory_id, now)
  local own = {}
  if not request.with_locks or lock_count() == 0 then return own end
  for _, lock in ipairs(locks_beneath(directory_id, now)) do
    own[lock.entry_id] = own[lock.entry_id] or {}
    table.insert(own[lock.entry_id], lock)
  end
  return own
end

-- The replicas of all files of a page, one list for each, read together.
local function replicas_of_page(page)
  local lists, handles, counts = {}, {}, {}
  for i = 2, #page, 2 do
    local before = #handles
    if request.with_locations and not is_directory(page[i]) then
      append_handles(handles, inline_extents(page[i]), INLINE_EXTENTS_MAX)
    end
    counts[#counts + 1] = #handles - before
  end
  local replicas, last = read_replicas(handles), 0
  for i, count in ipairs(counts) do
    lists[i] = {unpack(replicas, last + 1, last + count)}
    last = last + count
  end
  return lists
end

local function extras_of_page(page, directory_id, now)
  local extras = {}
  if not (request.with_locations or request.with_properties or request.with_locks) then return extras end
  local own = locks_of_page(directory_id, now)
  local replicas = replicas_of_page(page)
  for i = 1, #page / 2 do
    local record = page[2 * i]
    extras[i] = pack_extra(record, replicas[i], own[id_of(record)] or {})
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
  if not request.with_locations then leave_out_extents(page) end
  local locks = {}
  if request.with_locks and lock_count() > 0 then locks = covering_locks(id, place.ids, now) end
  local directory = {place.name, handed_out(place.record), pack_extra(place.record, {}, locks)}
  return {'', directory, cursor, page, extras_of_page(page, id, now)}
end)
