// Server-sent events in the text of an answer, whatever pieces it comes in. Pure.

const FIELD = /^data: ?(.*)$/;

function dataOf(block) {
  const lines = block.split("\n").map((line) => FIELD.exec(line)).filter(Boolean);
  return lines.length > 0 ? lines.map(([, value]) => value).join("\n") : null;
}

/**
 * {events, rest}: the data of each event that a piece of text completes, and what is left of it for the next call. `rest` is
 * "" at the beginning. Comments and other fields are passed over.
 */
export function readEvents(rest, text) {
  const whole = rest + text;
  // it may be the first half of a line's end
  const isOpen = whole.endsWith("\r");
  const blocks = (isOpen ? whole.slice(0, -1) : whole).replaceAll("\r\n", "\n").split("\n\n");
  const left = blocks.pop();
  return { events: blocks.map(dataOf).filter((data) => data !== null), rest: isOpen ? `${left}\r` : left };
}
