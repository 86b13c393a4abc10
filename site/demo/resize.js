// The resize of the network's transforms, to the last bit: Pillow's bilinear one for 8-bit pictures. The filter is a
// triangle as wide as two pixels of the smaller picture, so that shrinking averages (a canvas does not resize so).
// Columns come first, then rows; weights are whole numbers of 2^-22, and each pass rounds to 8 bits.

const BITS = 22;
const BAND = 128;      // rows read at once: telephones refuse a canvas as large as their photographs

/** For `count` pixels from `first` of a line resized from `from` to `to` pixels: where each begins to read, and with
 * what weights. */
function filter(from, to, first, count) {
  const scale = from / to, reach = Math.max(scale, 1);
  return Array.from({length: count}, (_, i) => {
    const centre = (first + i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(from, Math.trunc(centre + reach + 0.5));
    const weights = Array.from({length: end - start},
                               (_, x) => Math.max(0, 1 - Math.abs((x + start - centre + 0.5) * (1 / reach))));
    const sum = weights.reduce((a, b) => a + b, 0);
    return {start, end, weights: Int32Array.from(weights, weight => Math.trunc(0.5 + weight / sum * 2 ** BITS))};
  });
}

/** Python's round: halves to the even number. */
function rounded(number) {
  const low = Math.floor(number), rest = number - low;
  return rest > 0.5 || (rest === 0.5 && low % 2) ? low + 1 : low;
}

/** The centre of a picture whose shorter side is brought to `shorter` pixels: side × side pixels, three bytes each.
 * read(top, rows): the RGBA bytes of these rows of the picture, which has width × height pixels. */
export function centre(read, width, height, shorter, side) {
  const [wide, high] = [width, height].map(length => Math.trunc(shorter * length / Math.min(width, height)));
  const columns = filter(width, wide, rounded((wide - side) / 2), side);
  const rows = filter(height, high, rounded((high - side) / 2), side);
  const first = rows[0].start, last = rows[side - 1].end, line = 3 * side;

  const narrow = new Uint8Array((last - first) * line);
  for (let top = first; top < last; top += BAND) {
    const count = Math.min(BAND, last - top), band = read(top, count);
    for (let y = 0, out = (top - first) * line; y < count; y++) {
      for (const {start, weights} of columns) {
        let red = 1 << (BITS - 1), green = red, blue = red;
        for (let x = 0, at = 4 * (y * width + start); x < weights.length; x++, at += 4) {
          red += weights[x] * band[at];
          green += weights[x] * band[at + 1];
          blue += weights[x] * band[at + 2];
        }
        narrow[out++] = red >> BITS;
        narrow[out++] = green >> BITS;
        narrow[out++] = blue >> BITS;
      }
    }
  }

  const small = new Uint8Array(side * line);
  rows.forEach(({start, weights}, y) => {
    for (let x = 0; x < line; x++) {
      let sum = 1 << (BITS - 1);
      for (let k = 0; k < weights.length; k++) sum += weights[k] * narrow[(start - first + k) * line + x];
      small[y * line + x] = sum >> BITS;
    }
  });
  return small;
}
