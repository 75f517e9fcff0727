-- prelude: script tree content
-- Copy some members of live directories into staged ones. A job is {source id, ids of the staged directories from the
-- top to the target, cursor}. Each page is copied at one moment; the whole copy is not a snapshot. Answers the jobs
-- that are left, the same when a step is repeated after a lost reply.

-- Names of a page that the target does not have yet: a scan of a shrinking hash may bring one twice.
local function new_members(job, page, target)
  local names, records, seen = {}, {}, {}
  for i = 1, #page, 2 do
    local name = page[i]
    if not seen[name] and (job[3] == '0' or call('HEXISTS', target, name) == 0) then
      seen[name] = true
      names[#names + 1], records[#records + 1] = name, page[i + 1]
    end
  end
  return names, records
end

-- Copies a page and answers the jobs for the directories in it.
local function copy_members(job, page, now, sequence)
  local chain = job[2]
  local target = P .. 'd:' .. chain[#chain]
  local names, records = new_members(job, page, target)
  local files, directories, bytes, jobs, counts, fields = 0, 0, 0, {}, {}, {}
  local first = call('INCRBY', P .. 'next_id', #names) - #names
  for i, record in ipairs(records) do
    local id = first + i
    fields[2 * i - 1], fields[2 * i] = names[i], copy_record(record, id, sequence, now, counts)
    if is_directory(record) then
      start_totals(id, sequence)
      directories = directories + 1
      jobs[#jobs + 1] = {id_of(record), joined(chain, {id}), '0'}
    else
      files, bytes = files + 1, bytes + size_of(record)
    end
  end
  in_groups(fields, function(...) call('HSET', target, ...) end)
  change_references(counts, now)
  add_totals(chain, sequence, files, directories, bytes)
  return jobs
end

return run_once(function()
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
