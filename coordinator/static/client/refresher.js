// Asking the API again, as often as is useful and no oftener.

const GAP_MS = 500;

/**
 * Calls `load()` and hands its result to `show(result)`: at once when `ask()` is called, but one call at a time and with
 * a gap between two, and by itself `everyMs` after the last one (0: never). After `stop()` nothing is shown any more.
 */
export function refresher(load, show, onError, everyMs = 0) {
  let timer = 0;
  let busy = false;
  let asked = false;
  let stopped = false;

  async function work() {
    try {
      const result = await load();
      if (!stopped) show(result);
    } catch (error) {
      if (!stopped) onError(error);
    }
  }

  async function ask() {
    clearTimeout(timer);
    asked = true;
    if (busy) return;
    busy = true;
    while (asked && !stopped) {
      asked = false;
      await work();
      await new Promise((resolve) => { setTimeout(resolve, GAP_MS); });
    }
    busy = false;
    if (everyMs && !stopped) timer = setTimeout(ask, everyMs);
  }

  return { ask, stop: () => { stopped = true; clearTimeout(timer); } };
}
