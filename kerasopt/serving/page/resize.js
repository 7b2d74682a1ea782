// A photo at the size of the model's input, as ko.datasets.load_image makes it: the middle is cut
// out with the aspect ratio of the target and resized by Pillow's antialiased bilinear filter, in
// the same fixed-point numbers. A canvas' own scaling is another filter in every browser.

const BITS = 22; // Pillow's precision for 8-bit pixels
const HALF = 2 ** (BITS - 1);
const BAND = 256; // source rows that are held at once, so that no photo is too large

/** The box [left, top, right, bottom] that is cut out of a photo. */
export function middle(width, height, outWidth, outHeight) {
  const scale = Math.min(width / outWidth, height / outHeight);
  const left = (width - outWidth * scale) / 2;
  const top = (height - outHeight * scale) / 2;
  const box = [
    Math.max(left, 0),
    Math.max(top, 0),
    Math.min(left + outWidth * scale, width),
    Math.min(top + outHeight * scale, height),
  ];
  return box.map(Math.fround); // Pillow takes them in single precision
}

/** For each target pixel the first source pixel it reads, and the weights of those it reads. */
function taps(size, from, to, outSize) {
  const scale = (to - from) / outSize;
  const support = Math.max(scale, 1);
  const found = [];
  for (let x = 0; x < outSize; x++) {
    const center = from + (x + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const end = Math.min(Math.trunc(center + support + 0.5), size);
    const weights = new Float64Array(end - first);
    let sum = 0;
    for (let k = 0; k < weights.length; k++) {
      weights[k] = Math.max(0, 1 - Math.abs((k + first - center + 0.5) / support));
      sum += weights[k];
    }
    const whole = Int32Array.from(weights, (w) => Math.trunc(0.5 + (w / sum) * 2 ** BITS));
    found.push({ first, weights: whole });
  }
  return found;
}

/**
 * Resizes the middle of a photo.
 *
 * readRows(y, count) returns RGBA bytes of `count` whole rows from row `y` on. Returns bytes of
 * (outHeight, outWidth, channels): RGB, or the luma that Pillow's mode "L" has.
 */
export function resizeMiddle(readRows, width, height, outWidth, outHeight, channels) {
  const [left, top, right, bottom] = middle(width, height, outWidth, outHeight);
  const columns = taps(width, left, right, outWidth);
  const rows = taps(height, top, bottom, outHeight);
  const firstRow = rows[0].first;
  const last = rows[outHeight - 1];
  const endRow = last.first + last.weights.length;
  const narrow = new Uint8Array((endRow - firstRow) * outWidth * channels);
  for (let y = firstRow; y < endRow; y += BAND) {
    const count = Math.min(BAND, endRow - y);
    const band = channels === 1 ? grey(readRows(y, count)) : readRows(y, count);
    const target = narrow.subarray((y - firstRow) * outWidth * channels);
    acrossRows(band, width, count, columns, target, channels);
  }
  return downColumns(narrow, outWidth, rows, firstRow, channels);
}

/** Luma in the place of red, with ITU-R 601-2 in Pillow's 16-bit numbers. */
function grey(rgba) {
  const out = new Uint8Array(rgba.length);
  for (let i = 0; i < rgba.length; i += 4) {
    out[i] = (rgba[i] * 19595 + rgba[i + 1] * 38470 + rgba[i + 2] * 7471 + 0x8000) >> 16;
  }
  return out;
}

function acrossRows(band, width, count, columns, target, channels) {
  for (let y = 0, out = 0; y < count; y++) {
    for (const { first, weights } of columns) {
      const start = (y * width + first) * 4;
      for (let c = 0; c < channels; c++) {
        let sum = HALF;
        for (let k = 0, i = start + c; k < weights.length; k++, i += 4) sum += band[i] * weights[k];
        target[out++] = Math.min(sum >> BITS, 255);
      }
    }
  }
}

function downColumns(narrow, outWidth, rows, firstRow, channels) {
  const stride = outWidth * channels;
  const out = new Uint8Array(rows.length * stride);
  rows.forEach(({ first, weights }, y) => {
    const start = (first - firstRow) * stride;
    for (let x = 0; x < stride; x++) {
      let sum = HALF;
      for (let k = 0, i = start + x; k < weights.length; k++, i += stride) {
        sum += narrow[i] * weights[k];
      }
      out[y * stride + x] = Math.min(sum >> BITS, 255);
    }
  });
  return out;
}
