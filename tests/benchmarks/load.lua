-- wrk's side of a scenario: `wrk ... -- METHOD BODY_BYTES PIPELINE_DEPTH`; the result is one line of JSON.

function init(args)
  local method, size, depth = args[1], tonumber(args[2]), tonumber(args[3])
  wrk.method = method
  if size > 0 then wrk.body = string.rep("x", size) end
  if depth > 1 then
    local batch = string.rep(wrk.format(), depth)
    request = function() return batch end  -- defined only here: a request function is called for every request
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "bytes": %d, "p50": %.4f, "p99": %.4f, "max": %.4f, ' ..
    '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}',
    summary.requests, summary.duration / 1e6, summary.bytes,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
