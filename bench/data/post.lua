-- Sends one POST body, read from the file that is named after `--`, and prints one result line,
-- which bench/src/wrk.rs parses. A number after the file is the length of the JSON in a binary
-- body.

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.headers["Content-Type"] = args[2] and "application/octet-stream" or "application/json"
  wrk.headers["Inference-Header-Content-Length"] = args[2]
  wrk.body = file:read("*a")
  file:close()
end

-- Durations are in microseconds. `status` counts answers with a status over 399, `socket` requests
-- without an answer.
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    "RESULT requests=%d duration_us=%d p50_us=%d p99_us=%d status=%d socket=%d\n",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
