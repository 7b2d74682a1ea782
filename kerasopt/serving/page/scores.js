// From what a file takes and gives to pixels and probabilities, by what it says of itself.

/** The input of the file: the bytes of the bitmap, or (pixel - mean) / std of each channel. */
export function toInput(pixels, model) {
  if (model.input_dtype === "uint8") return pixels;
  const { channels, mean, std } = model;
  return Float32Array.from(pixels, (p, i) => (p - mean[i % channels]) / std[i % channels]);
}

/** The outputs of the file in real numbers. */
export function toReal(values, model) {
  if (model.output_dtype !== "uint8") return Array.from(values);
  return Array.from(values, (v) => (v - model.zero_point) * (model.scale || 1));
}

/** A probability, or a calibrated score, for each output. */
export function toProbabilities(outputs, model) {
  if (model.activation === "sigmoid") return outputs.map(sigmoid);
  if (model.activation === "softmax") {
    const largest = Math.max(...outputs);
    const powers = outputs.map((x) => Math.exp(x - largest));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((x) => x / sum);
  }
  if (model.activation === "calibration") return outputs.map((x, i) => calibrated(x, i, model));
  return outputs;
}

/** The classes, the likeliest first. */
export function ranked(outputs, model) {
  return toProbabilities(outputs, model)
    .map((probability, index) => ({
      index,
      label: model.labels[index],
      probability,
      score: outputs[index],
    }))
    .sort((a, b) => b.probability - a.probability || b.score - a.score || a.index - b.index);
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

function calibrated(x, index, model) {
  const [scale, slope, offset, least] = model.calibration[index] ?? [];
  if (scale === undefined || (least !== undefined && x < least)) return 0;
  const seen = { identity: x, log: Math.log(x), inverse_logistic: Math.log(x / (1 - x)) };
  return scale * sigmoid(slope * seen[model.transformation] + offset);
}
