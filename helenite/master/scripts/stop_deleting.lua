-- prelude: script tree content guard
-- Nothing is deleted from now on, until a person says that the metadata is right.

return run(function()
  check_epoch()
  stop_deleting(request.reason)
  return {''}
end)
