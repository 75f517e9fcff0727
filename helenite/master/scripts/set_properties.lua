-- prelude: script tree locks
-- Dead properties and times of an entry, all or nothing. The content's revision, hence a file's ETag, stays.

local PROPERTIES_MAX = 1000 -- of one entry; what a listing with properties has to carry

return run_once(function()
  local now = now_ms()
  local place = resolve(request.names)
  check_condition(place, request.condition)
  must_exist(place)
  local record = place.record
  local id = id_of(record)
  require_token(id, place.ids, now)
  local key = P .. 'x:' .. id
  if #request.set > 0 and call('HLEN', key) + #request.set / 2 > PROPERTIES_MAX then
    fail('quota_exceeded', place.path .. ' would have more than ' .. PROPERTIES_MAX .. ' properties')
  end

  local sequence = next_sequence()
  for i = 1, #request.set, 2 do call('HSET', key, request.set[i], request.set[i + 1]) end
  for _, name in ipairs(request.remove) do call('HDEL', key, name) end
  record = with_flag(record, PROPERTIES, call('EXISTS', key) == 1)
  if request.modified_at_ms > 0 then record = with_modified(record, request.modified_at_ms) end
  if request.created_at_ms > 0 then record = with_created(record, request.created_at_ms) end
  put_record(place, record)
  local ids = is_directory(record) and joined(place.ids, {id}) or place.ids
  add_totals(ids, sequence, 0, 0, 0)
  announce(sequence, 'set_properties', place, '', record, ids)
  return outcome(place, record, false, sequence)
end)
