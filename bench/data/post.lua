-- One POST body, read from the file named after `--`, and one result line that xtask parses. A number behind it says how
-- much of a binary body is JSON.

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.headers["Content-Type"] = args[2] and "application/octet-stream" or "application/json"
  wrk.headers["Inference-Header-Content-Length"] = args[2]
  wrk.body = file:read("*a")
  file:close()
end

-- Durations are in microseconds; `status` counts answers over 399, `socket` what never became an answer.
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    "RESULT requests=%d duration_us=%d p50_us=%d p99_us=%d status=%d socket=%d\n",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
