-- prelude: script tree locks content target
-- Copy a file, or a directory without its members, in one step. A whole directory is first copied into a detached
-- one by copy_step.lua; this script begins that (it checks everything, so that what must fail fails early) and, run
-- again with `staged`, attaches the result.

local function begin_staging(source, now)
  local id = call('INCR', P .. 'next_id')
  call('HSET', P .. 'staging', id, now)
  start_totals(id, tonumber(call('GET', P .. 'seq') or 0))
  return {'', 'staging', id_of(source.record), id, is_interim = true}
end

local function check_staged(source)
  if id_of(source.record) ~= request.staged_from then
    fail('unavailable', source.path .. ' was replaced while it was copied; try again')
  end
  if call('HEXISTS', P .. 'staging', request.staged) == 0 then
    fail('unavailable', 'the copy of ' .. source.path .. ' took too long and was given up; try again')
  end
end

return run_once(function()
  local now = now_ms()
  local source, target = resolve(request.source), resolve(request.target)
  check_condition(source, request.condition)
  must_exist(source)
  local is_tree = is_directory(source.record) and not request.is_shallow
  if is_tree or not contains(target.ids, id_of(source.record)) then refuse_cycle(source, target) end
  check_target(target)
  require_target_tokens(target, now)
  if is_tree then
    if not request.staged then return begin_staging(source, now) end
    check_staged(source)
  end

  local sequence = next_sequence()
  local id = is_tree and request.staged or call('INCR', P .. 'next_id')
  local counts = {}
  local record = copy_record(source.record, id, sequence, now, counts)
  change_references(counts, now)
  if is_tree then
    call('HDEL', P .. 'staging', id)
  elseif is_directory(record) then
    start_totals(id, sequence)
  end
  local files, directories, bytes = weigh(record)
  local old = target.record
  local old_files, old_directories, old_bytes = displace(target, record, sequence, now)
  put_record(target, record)
  touch_parent(target, now)
  add_totals(target.ids, sequence, files - old_files, directories - old_directories, bytes - old_bytes)
  announce(sequence, 'copy', target, source.path, record, target.ids, old)
  return outcome(target, record, not old, sequence)
end)
