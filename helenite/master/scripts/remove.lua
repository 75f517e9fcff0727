-- prelude: script tree locks content
-- Detach an entry, with everything beneath it, in constant time.

return run_once(function()
  local now = now_ms()
  local place = resolve(request.names)
  check_condition(place, request.condition)
  must_exist(place)
  if place.dir == 0 then fail('permission_denied', 'the root cannot be removed') end
  require_tree_tokens(place, now)
  require_parent_token(place, now)

  write_even_when_full()
  local sequence = next_sequence()
  local record = handed_out(place.record)
  local files, directories, bytes = weigh(place.record)
  call('HDEL', P .. 'd:' .. place.dir, place.name)
  drop_tree_locks(place.record)
  bury(place, request.names, sequence, now)
  touch_parent(place, now)
  add_totals(place.ids, sequence, -files, -directories, -bytes)
  announce(sequence, 'remove', place, '', record, place.ids)
  return {'', place.name, record, 0, sequence, ''}
end)
