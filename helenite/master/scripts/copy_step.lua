-- prelude: script tree content
-- Copy some members of live directories into staged ones. A job is {source id, ids of the staged directories from the
-- top to the target, cursor}. Each page is copied at one moment; the whole copy is not a snapshot. Answers the jobs
-- that are left.

local function copy_members(job, page, now, sequence)
  local target, chain = P .. 'd:' .. job[2][#job[2]], job[2]
  local files, directories, bytes, jobs = 0, 0, 0, {}
  local id = call('INCRBY', P .. 'next_id', #page / 2) - #page / 2
  for i = 1, #page, 2 do
    local name, record = page[i], page[i + 1]
    -- A scan of a shrinking hash may bring a name twice.
    if call('HEXISTS', target, name) == 0 then
      id = id + 1
      local copy = copy_record(record, id, sequence, now)
      call('HSET', target, name, copy)
      if is_directory(record) then
        start_totals(id, sequence)
        directories = directories + 1
        jobs[#jobs + 1] = {id_of(record), joined(chain, {id}), '0'}
      else
        files, bytes = files + 1, bytes + size_of(record)
      end
    end
  end
  add_totals(chain, sequence, files, directories, bytes)
  return jobs
end

return run(function()
  local now = now_ms()
  if call('HEXISTS', P .. 'staging', request.staged) == 0 then
    fail('unavailable', 'the copy took too long and was given up; try again')
  end
  call('HSET', P .. 'staging', request.staged, now)
  local sequence = tonumber(call('GET', P .. 'seq') or 0)
  local left, budget = {}, request.budget
  for _, job in ipairs(request.jobs) do
    if budget <= 0 then
      left[#left + 1] = job
    else
      local scanned = call('HSCAN', P .. 'd:' .. job[1], job[3], 'COUNT', budget)
      budget = budget - 1 - #scanned[2] / 2
      for _, more in ipairs(copy_members(job, scanned[2], now, sequence)) do left[#left + 1] = more end
      if scanned[1] ~= '0' then left[#left + 1] = {job[1], job[2], scanned[1]} end
    end
  end
  return {'', cmsgpack.pack(left)}
end)
