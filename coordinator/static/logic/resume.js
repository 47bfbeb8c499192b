// A session's event stream, read on after a break without a gap and without reading anything twice. Pure.
//
// After a break the coordinator is asked for the events after the last one that is known. It first sends a snapshot of now,
// then those events: they are older than the snapshot, and must not turn back what it says. Numbers may be missing among
// them, since old progress is not kept for ever.

/** Events that are read again at most; who was away for longer loads everything anew. */
export const MOST_REPLAYED = 5000;

/** Of a reader that knows nothing yet. `seq`: the last event; `snapshotSeq`: the last one that the snapshot includes. */
export const START = Object.freeze({ seq: null, snapshotSeq: null });

function receiveSnapshot(cursor, { seq }) {
  const isFirst = cursor.seq === null;
  // a smaller number than before: the coordinator goes on from a copy of its database
  const isRewound = !isFirst && seq < cursor.seq;
  const isFarBehind = !isFirst && seq - cursor.seq > MOST_REPLAYED;
  const reload = isFirst || isRewound || isFarBehind;
  return { cursor: { seq: reload ? seq : cursor.seq, snapshotSeq: seq }, use: "snapshot", reload };
}

/**
 * What to do with a frame {seq, type}: `use` is "snapshot", "event" (it is news), "past" (it belongs to the log, but says
 * nothing about now) or "nothing" (it is known); `reload`: whether lists must be loaded anew. `cursor` goes with the next one.
 */
export function receive(cursor, frame) {
  if (frame.type === "snapshot") return receiveSnapshot(cursor, frame);
  if (cursor.seq === null || frame.seq <= cursor.seq) return { cursor, use: "nothing", reload: false };
  const isPast = frame.seq <= cursor.snapshotSeq;
  const reload = !isPast && frame.seq > Math.max(cursor.seq, cursor.snapshotSeq) + 1;
  return { cursor: { ...cursor, seq: frame.seq }, use: isPast ? "past" : "event", reload };
}
