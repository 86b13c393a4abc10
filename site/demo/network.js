// The network in this page: onnxruntime-web, one thread of WebAssembly.

import * as ort from "./ort.wasm.bundle.min.mjs";

const ANSWERS = 5;

/** The reply for a file that lies beside this one. Rejects where there is none. */
export async function fetched(name) {
  const reply = await fetch(new URL(name, import.meta.url)).catch(() => null);
  if (!reply?.ok) throw new Error(`${name} could not be loaded`);
  return reply;
}

/** A function from the pixels of a picture (side × side, three bytes each) to the network's answer: `top`, its best
 * classes as {index, probability}, and `map(index)`, the class map, cells × cells. Rejects where a file is missing. */
export async function loadNetwork({side, cells}) {
  const [model, runtime] = await Promise.all(
    ["network.onnx", "ort-wasm-simd-threaded.wasm"].map(async name => (await fetched(name)).arrayBuffer()));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = runtime;
  const session = await ort.InferenceSession.create(new Uint8Array(model), {executionProviders: ["wasm"]});
  let before = Promise.resolve();      // a session answers one question at a time
  return pixels => before = before.catch(() => {}).then(async () => {
    const {probabilities, maps} = await session.run({pixels: new ort.Tensor("uint8", pixels, [1, side, side, 3])});
    const top = Array.from(probabilities.data, (probability, index) => ({index, probability}))
      .sort((a, b) => b.probability - a.probability).slice(0, ANSWERS);
    return {top, map: index => maps.data.subarray(index * cells ** 2, (index + 1) * cells ** 2)};
  });
}
