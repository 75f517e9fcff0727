-- prelude: script tree locks content
-- Put a deleted entry back, with everything beneath it, in constant time.

return run_once(function()
  local now = now_ms()
  local item = read_trashed(request.id)
  if not item then fail('entry_not_found', 'the trash has no item ' .. request.id) end
  local place = resolve(request.names or item.names)
  parent_must_exist(place)
  if place.record then fail('entry_exists', place.path .. ' exists') end
  require_parent_token(place, now)

  local sequence = next_sequence()
  local record = item.record
  forget_trashed(request.id)
  put_record(place, record)
  touch_parent(place, now)
  add_totals(place.ids, sequence, weigh(record))
  announce(sequence, 'restore_trashed', place, '', record, place.ids)
  return outcome(place, record, true, sequence)
end)
