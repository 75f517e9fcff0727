-- prelude: script tree locks content
-- Take a lock; a name that does not exist becomes an empty file (RFC 4918 section 7.3).

local function refuse_conflict(locks)
  for _, lock in ipairs(locks) do
    if request.scope == 'exclusive' or lock.scope == 'exclusive' then
      fail('locked', lock.path .. ' is locked')
    end
  end
end

local function create_empty(place, now, sequence)
  local record = new_file(call('INCR', P .. 'next_id'), sequence, 0, now, now, '', '')
  put_record(place, record)
  touch_parent(place, now)
  add_totals(place.ids, sequence, 1, 0, 0)
  announce(sequence, 'commit', place, '', record, place.ids)
  return record
end

return run_once(function()
  local now = now_ms()
  local place = resolve(request.names)
  local record = place.record
  parent_must_exist(place)
  check_condition(place, request.condition)
  if lock_count() > 0 then
    if record then
      refuse_conflict(covering_locks(id_of(record), place.ids, now))
      if request.is_infinite and is_directory(record) then refuse_conflict(locks_beneath(id_of(record), now)) end
    else
      refuse_conflict(add_infinite({}, place.ids, now))
      require_parent_token(place, now)
    end
    if lock_count() >= LOCKS_MAX then fail('quota_exceeded', 'there are ' .. LOCKS_MAX .. ' locks already') end
    if call('HEXISTS', P .. 'locks', request.token) == 1 then fail('invalid_request', 'this lock token is in use') end
  end

  local sequence = tonumber(call('GET', P .. 'seq') or 0)
  if not record then
    sequence = next_sequence()
    record = create_empty(place, now, sequence)
  end
  local lock = {
    token = request.token, path = place.path, scope = request.scope, is_infinite = request.is_infinite,
    owner = request.owner, principal = request.condition.principal, timeout_s = request.timeout_s,
    expires_at_ms = now + request.timeout_s * 1000, entry_id = id_of(record), ids = place.ids,
  }
  add_lock(lock, is_directory(record))
  return outcome(place, record, not place.record, sequence, cmsgpack.pack({lock}))
end)
