// What views are written with: htm's tagged templates over Preact. What stands in `${}` is text or a property, never markup.
import htm from "../vendor/htm/htm.js";
import { h } from "../vendor/preact/preact.js";

export { Component, Fragment, render } from "../vendor/preact/preact.js";
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact/hooks.js";

export const html = htm.bind(h);
