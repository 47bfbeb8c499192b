// A state that views look at: it is replaced as a whole, and views hear of it once a frame at most.

const HIDDEN_MS = 1000;

// a tab that nobody sees draws no frames, and yet its title says how the session stands
const soon = (work) => (document.hidden ? setTimeout(work, HIDDEN_MS) : requestAnimationFrame(work));

/** Holds `state`; `subscribe(listener)` returns what ends it. Many changes within a frame are one call of the listeners. */
export class Store {
  #listeners = new Set();
  #isDue = false;

  constructor(state) {
    this.state = state;
  }

  /** Replace the state by what `change(state)` answers. */
  update(change) {
    const next = change(this.state);
    if (next === this.state) return;
    this.state = next;
    if (this.#isDue || this.#listeners.size === 0) return;
    this.#isDue = true;
    soon(() => {
      this.#isDue = false;
      for (const listener of [...this.#listeners]) listener(this.state);
    });
  }

  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
