// Errors that people are to read in their own language. Pure.

/** What went wrong, as a text of the catalog: its key, and the values for its placeholders. */
export class SaidError extends Error {
  constructor(key, values = {}) {
    super(key);
    this.key = key;
    this.values = values;
  }
}
