// The stand-in for `hostler:plugin/http`.

import { errorOf } from "../../lib/errors.js";
import { argument, hostError, memory } from "../memory.js";

export function fetch(request) {
  argument(request, "object", "http.fetch: request");
  if (memory.http === null) {
    throw hostError(
      "unsupported",
      `the server of ${request.url} is not allowed; answer requests with host.http((request) => response)`,
    );
  }
  try {
    const { status = 200, headers = [], body = new Uint8Array() } = memory.http(request) ?? {};
    return { status, headers, body: typeof body === "string" ? new TextEncoder().encode(body) : body };
  } catch (thrown) {
    const error = errorOf(thrown);
    throw error === null ? thrown : hostError(error.kind, error.message, error.field);
  }
}

export default { fetch };
