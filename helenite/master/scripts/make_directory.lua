-- prelude: script tree locks
-- A new, empty directory.

return run_once(function()
  local now = now_ms()
  local place = resolve(request.names)
  parent_must_exist(place)
  check_condition(place, request.condition)
  if place.record then fail('entry_exists', place.path .. ' exists') end
  require_parent_token(place, now)

  local sequence = next_sequence()
  local id = call('INCR', P .. 'next_id')
  local record = new_directory(id, sequence, request.modified_at_ms > 0 and request.modified_at_ms or now, now)
  start_totals(id, sequence)
  put_record(place, record)
  touch_parent(place, now)
  add_totals(place.ids, sequence, 0, 1, 0)
  announce(sequence, 'make_directory', place, '', record, place.ids)
  return outcome(place, record, true, sequence)
end)
