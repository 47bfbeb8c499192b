// The coordinator's REST API, as a stranger reads it in the documentation.

const JSON_TYPE = "application/json";

/** One call below /api/v1: {status, body}; body is null where the answer has none. */
export async function call(url, method, path, { token, body } = {}) {
  const headers = { Accept: JSON_TYPE };
  if (body !== undefined) headers["Content-Type"] = JSON_TYPE;
  if (token !== undefined) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(`${url}/api/v1${path}`, { method, headers, body: JSON.stringify(body) });
  const text = await response.text();
  return { status: response.status, body: text ? JSON.parse(text) : null };
}

/** The body of a call that must succeed. */
export async function callWell(url, method, path, options) {
  const { status, body } = await call(url, method, path, options);
  if (status >= 400) throw new Error(`${method} ${path}: ${status} ${JSON.stringify(body)}`);
  return body;
}
