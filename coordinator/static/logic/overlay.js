// Several sessions' curves in one chart. Pure.

/** Most curves in one chart; each has a colour and a dash of its own. */
export const MOST_CURVES = 6;

/** `field` of several lists of points over their samples, as columns [x, y…]: null where a curve has no point at an x. */
export function overlay(curves, field) {
  const places = [...new Set(curves.flatMap((points) => points.map(({ samples }) => samples)))].sort((a, b) => a - b);
  const series = curves.map((points) => {
    const byPlace = new Map(points.map((point) => [point.samples, point[field] ?? null]));
    return places.map((place) => byPlace.get(place) ?? null);
  });
  return [places, ...series];
}

/** Of its session's points those that led to a version: one that was saved in the middle knows nothing of later rounds. */
export const curveOf = ({ round }, points) => (round === null ? points : points.filter((point) => point.round <= round));

/** `model:version` of a version, as it is named in a comparison. */
export const referenceOf = ({ model, version }) => `${model}:${version}`;

/** A list without `value` if it is in it, else with it behind. */
export const toggled = (list, value) => (list.includes(value) ? list.filter((one) => one !== value) : [...list, value]);
