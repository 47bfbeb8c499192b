// Addresses of the page's views, behind the `#`. Pure.

const ROUTES = [
  { view: "session", pattern: /^\/s\/([\w.-]+)$/, names: ["id"] },
  { view: "new", pattern: /^\/new$/, names: [] },
  { view: "compare", pattern: /^\/models\/compare\/([^/]+)$/, names: ["ids"] },
  { view: "model", pattern: /^\/models\/([^/]+)$/, names: ["id"] },
  { view: "models", pattern: /^\/models$/, names: [] },
  { view: "learning", pattern: /^\/learning$/, names: [] },
  { view: "contributors", pattern: /^\/contributors$/, names: [] },
  { view: "sessions", pattern: /^\/?$/, names: [] },
];

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a % that begins no character: it stands for itself
  }
}

/** `#/s/abc` -> {view: "session", id: "abc"}; {view: "unknown"} for what is no address of this page. */
export function parseRoute(hash) {
  const path = hash.replace(/^#/, "");
  for (const { view, pattern, names } of ROUTES) {
    const match = pattern.exec(path);
    if (match) return { view, ...Object.fromEntries(names.map((name, index) => [name, decoded(match[index + 1])])) };
  }
  return { view: "unknown" };
}

export const sessionAddress = (id) => `#/s/${encodeURIComponent(id)}`;
export const modelAddress = (id) => `#/models/${encodeURIComponent(id)}`;
export const compareAddress = (references) => `#/models/compare/${encodeURIComponent(references.join(","))}`;
