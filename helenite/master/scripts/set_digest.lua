-- prelude: script tree content
-- What the content of a file's present revision hashes to. Nothing that anybody could see as a change: no sequence, no
-- element of the feed, and locks do not matter.

return run_once(function()
  local place = resolve(request.names)
  check_condition(place, request.condition)
  must_exist(place)
  local record = place.record
  if is_directory(record) then fail('wrong_kind', place.path .. ' is a directory') end
  if request.condition.expect ~= 'exact' then fail('invalid_request', 'a digest is of one revision') end
  if not has_flag(record, DIGEST) then
    record = with_digest(record, request.sha256)
    put_record(place, record)
  end
  return outcome(place, record, false, tonumber(call('GET', P .. 'seq') or 0))
end)
