// A class map over a photograph, as `overlay` of course_utils draws it, and where it is largest in words.

const PLACES = [["at the top left", "at the top", "at the top right"],
                ["at the left", "in the middle", "at the right"],
                ["at the bottom left", "at the bottom", "at the bottom right"]];

/** For `size` pixels along `cells` cells: the two cells that each lies between, and how near it is to the second. */
function between(cells, size) {
  return Array.from({length: size}, (_, i) => {
    const at = Math.max(0, (i + 0.5) * cells / size - 0.5), low = Math.floor(at);
    return [low, Math.min(low + 1, cells - 1), at - low];
  });
}

/** A map of cells × cells, enlarged bilinearly to size × size. */
function enlarged(map, cells, size) {
  const along = between(cells, size), large = new Float32Array(size * size);
  along.forEach(([top, bottom, down], y) => along.forEach(([left, right, across], x) => {
    const upper = (1 - across) * map[top * cells + left] + across * map[top * cells + right];
    const lower = (1 - across) * map[bottom * cells + left] + across * map[bottom * cells + right];
    large[y * size + x] = (1 - down) * upper + down * lower;
  }));
  return large;
}

/** a · (255 − weight) + b · weight, over 255, rounded, as Pillow does it. */
function blended(a, b, weight) {
  const sum = a * (255 - weight) + b * weight + 128;
  return (sum + (sum >> 8)) >> 8;
}

/** The photograph in gray with the map's colours: more opaque where the map is larger, none where it is zero.
 * pixels: side × side, three bytes each. map: cells × cells, not negative. colours: 256 of three bytes. opacity: of
 * the largest value. */
export function overlay(pixels, side, map, cells, {colours, opacity}) {
  const values = enlarged(map, cells, side), largest = values.reduce((a, b) => Math.max(a, b), 0) || 1;
  const drawn = new ImageData(side, side);
  values.forEach((value, i) => {
    const [red, green, blue] = pixels.subarray(3 * i, 3 * i + 3), share = value / largest;
    const gray = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16;
    const weight = Math.round(255 * opacity ** (1 / share));
    const colour = colours[Math.min(255, Math.floor(256 * share))].map(part => blended(gray, part, weight));
    drawn.data.set([...colour, 255], 4 * i);
  });
  return drawn;
}

/** The photograph alone. */
export function plain(pixels, side) {
  const drawn = new ImageData(side, side);
  for (let i = 0; i < side * side; i++) drawn.data.set([...pixels.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  return drawn;
}

/** Where a map of cells × cells is largest, in words; "nowhere" where it is zero everywhere. */
export function place(map, cells) {
  const at = map.indexOf(Math.max(...map)), third = cell => Math.floor(3 * cell / cells);
  return map[at] > 0 ? PLACES[third(Math.floor(at / cells))][third(at % cells)] : "nowhere";
}
