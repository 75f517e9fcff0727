-- prelude: script tree locks content
-- Give a file its content: create it or swap its record. Chunks are fresh (written for this commit) or shared with
-- the very revision that an EXACT condition demands, so that no record can name a chunk that is being freed.

local function packed_handles(extents)
  local counts = {}
  for at = 1, #extents, EXTENT_BYTES do
    local handle = u64(extents, at)
    counts[handle] = (counts[handle] or 0) + 1
  end
  return counts
end

local function check_fresh()
  local fresh, highest = {}, 0
  for _, chunk in ipairs(request.fresh) do
    if read_replicas(chunk[1]) then fail('invalid_request', 'chunk ' .. chunk[1] .. ' has been committed before') end
    fresh[chunk[1]] = chunk[2]
    highest = math.max(highest, chunk[1])
  end
  if highest > 0 and highest > tonumber(call('GET', P .. 'next_handle') or 0) then
    fail('invalid_request', 'chunk ' .. highest .. ' was never allocated')
  end
  return fresh
end

local function check_shared(counts, fresh, old)
  local held
  for handle in pairs(counts) do
    if not fresh[handle] then
      if not held then
        held = old and request.condition.expect == 'exact' and packed_handles(read_extents(old)) or {}
      end
      if not held[handle] then
        fail('invalid_request', 'chunk ' .. handle .. ' is neither fresh nor of the revision that the commit demands')
      end
    end
  end
end

local function write_chunks(counts, fresh)
  for handle, count in pairs(counts) do
    if not fresh[handle] then
      add_references(handle, count)
    else
      local key, field = bucket_of(handle)
      call('HSET', key, field, fresh[handle])
      if count > 1 then call('HSET', P .. 'r', handle, count) end
    end
  end
end

return run_once(function()
  local now = now_ms()
  local place = resolve(request.names)
  local old = place.record
  parent_must_exist(place)
  check_condition(place, request.condition)
  if old and is_directory(old) then fail('wrong_kind', place.path .. ' is a directory') end
  if old then require_token(id_of(old), place.ids, now) else require_parent_token(place, now) end
  local counts, fresh = packed_handles(request.extents), check_fresh()
  check_shared(counts, fresh, old)

  local sequence = next_sequence()
  local id = old and id_of(old) or call('INCR', P .. 'next_id')
  write_chunks(counts, fresh)
  local modified = request.modified_at_ms > 0 and request.modified_at_ms or now
  local record = new_file(id, sequence, request.size_bytes, modified, old and created_of(old) or now, request.extents)
  if old and has_flag(old, PROPERTIES) then record = with_flag(record, PROPERTIES, true) end
  put_record(place, record)
  if old then queue_content(old) else touch_parent(place, now) end
  add_totals(place.ids, sequence, old and 0 or 1, 0, request.size_bytes - (old and size_of(old) or 0))
  announce(sequence, 'commit', place, '', record, place.ids)
  return outcome(place, record, not old, sequence)
end)
