// The page: takes photos, runs the file on them with LiteRT.js, shows what it says.
// Nothing is sent anywhere; what is fetched comes from the server of this page.

import { loadAndCompile, loadLiteRt, Tensor } from "./litert_js/core.js";
import { resizeMiddle } from "./resize.js";
import { ranked, toInput, toReal } from "./scores.js";

const SHOWN_CLASSES = 5;
const KEPT_PHOTOS = 24;
const $ = (id) => document.getElementById(id);
const state = { model: null, compiled: null, queue: Promise.resolve(), current: 0, count: 0 };

async function load() {
  state.model = await (await fetch("model.json")).json();
  const threads = await loadRuntime();
  state.compiled = await loadAndCompile("model.tflite", { accelerator: "wasm" });
  const { height, width, channels } = state.model;
  document.body.style.setProperty("--ratio", `${width} / ${height}`);
  await infer(new Uint8Array(height * width * channels)); // the first run is never like the next
  $("runtime").textContent = `LiteRT.js ${state.model.runtime}, ${threads}`;
  document.body.dataset.state = "ready";
}

/** Loads the build with threads where the browser has them. */
async function loadRuntime() {
  if (self.crossOriginIsolated) {
    try {
      const runtime = await loadLiteRt("litert_js/", { threads: true });
      const count = runtime.liteRtWasm.getThreadCount();
      return count === 1 ? "1 thread" : `${count} threads`;
    } catch (error) {
      console.info("No threads:", error.message);
    }
  }
  await loadLiteRt("litert_js/");
  return "1 thread";
}

async function infer(pixels) {
  const { height, width, channels } = state.model;
  const input = new Tensor(toInput(pixels, state.model), [1, height, width, channels]);
  const began = performance.now();
  const [output] = await state.compiled.run([input]);
  const values = await output.data();
  const milliseconds = performance.now() - began;
  const outputs = toReal(values, state.model);
  input.delete();
  output.delete();
  return { outputs, milliseconds };
}

/** The photo's pixels as the file takes them: upright, over white, colours as they are stored. */
async function prepare(blob) {
  const photo = await createImageBitmap(blob, {
    imageOrientation: "from-image",
    colorSpaceConversion: "none",
  });
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const readRows = (y, count) => {
    canvas.width = photo.width; // also clears it
    canvas.height = count;
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, photo.width, count);
    pen.drawImage(photo, 0, y, photo.width, count, 0, 0, photo.width, count);
    return pen.getImageData(0, 0, photo.width, count).data;
  };
  const { height, width, channels } = state.model;
  const pixels = resizeMiddle(readRows, photo.width, photo.height, width, height, channels);
  const size = `${photo.width} × ${photo.height}`;
  photo.close();
  return { pixels, size };
}

async function classify(blob, name) {
  const began = performance.now();
  let photo;
  try {
    photo = await prepare(blob);
  } catch {
    throw new Error(`“${name}” is not a photo that this browser can open.`);
  }
  const prepared = performance.now() - began;
  const { outputs, milliseconds } = await infer(photo.pixels);
  const url = URL.createObjectURL(blob);
  const classes = ranked(outputs, state.model);
  return { ...photo, name, url, classes, outputs, milliseconds, prepared };
}

/** Classifies photos one after the other, in the order in which they came. */
function take(files) {
  for (const file of files) {
    state.queue = state.queue.then(async () => {
      document.body.classList.add("busy");
      try {
        await state.loaded;
        keep(await classify(file, file.name || "photo"));
        problem("");
      } catch (error) {
        problem(error.message);
      }
      document.body.classList.remove("busy");
    });
  }
}

function show(answer, tile) {
  const [best] = answer.classes;
  document.body.classList.add("answered");
  $("photo").src = answer.url;
  $("photo").alt = answer.name;
  drawInput(answer.pixels);
  $("name").textContent = `${answer.name}, ${answer.size}`;
  $("label").textContent = best.label;
  $("percent").textContent = percent(best.probability);
  $("time").textContent = time(answer.milliseconds);
  $("prepared").textContent = time(answer.prepared);
  $("classes").replaceChildren(...answer.classes.slice(0, SHOWN_CLASSES).map(row));
  const hidden = answer.classes.length - SHOWN_CLASSES;
  $("rest").textContent = hidden > 0 ? `and ${hidden} less likely` : "";
  for (const other of $("photos").children) other.setAttribute("aria-current", other === tile);
  const { classes, outputs, milliseconds } = answer;
  $("answer").dataset.answer = JSON.stringify({ name: answer.name, classes, outputs, milliseconds });
}

function row(found) {
  const item = document.createElement("li");
  const label = document.createElement("span");
  const bar = document.createElement("i");
  const value = document.createElement("b");
  label.textContent = label.title = found.label;
  label.dir = "auto";
  bar.style.setProperty("--v", found.probability);
  value.textContent = percent(found.probability);
  value.title = `output ${found.score.toPrecision(5)}`;
  item.append(label, bar, value);
  return item;
}

/** Puts the photo on the strip; it can be looked at again. */
function keep(answer) {
  const tile = document.createElement("button");
  const picture = document.createElement("img");
  const label = document.createElement("span");
  tile.type = "button";
  picture.src = answer.url;
  picture.alt = "";
  label.textContent = answer.classes[0].label;
  tile.title = `${answer.name}: ${label.textContent}, ${percent(answer.classes[0].probability)}`;
  tile.append(picture, label);
  tile.addEventListener("click", () => show(answer, tile));
  tile.addEventListener("removed", () => URL.revokeObjectURL(answer.url));
  $("photos").prepend(tile);
  if ($("photos").children.length > KEPT_PHOTOS) {
    $("photos").lastElementChild.dispatchEvent(new Event("removed"));
    $("photos").lastElementChild.remove();
  }
  state.count += 1;
  document.body.classList.toggle("several", state.count > 1);
  show(answer, tile);
}

/** What the file was given, pixel by pixel. */
function drawInput(pixels) {
  const { height, width, channels } = state.model;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      image.data[4 * i + c] = pixels[i * channels + Math.min(c, channels - 1)];
    }
    image.data[4 * i + 3] = 255;
  }
  $("input").getContext("2d").putImageData(image, 0, 0);
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

/** Only a true 1 is written as 100 %. */
function percent(fraction) {
  const text = (100 * fraction).toFixed(1);
  if (text === "100.0") return fraction < 1 ? "> 99.9 %" : "100 %";
  return text === "0.0" && fraction > 0 ? "< 0.1 %" : `${text} %`;
}

function time(milliseconds) {
  return `${milliseconds.toFixed(milliseconds < 10 ? 2 : milliseconds < 100 ? 1 : 0)} ms`;
}

function listen() {
  $("file").addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = ""; // the same photo may be chosen again
  });
  let depth = 0;
  addEventListener("dragenter", () => document.body.classList.toggle("over", ++depth > 0));
  addEventListener("dragleave", () => document.body.classList.toggle("over", --depth > 0));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    document.body.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => take([...event.clipboardData.files]));
}

listen();
state.loaded = load();
state.loaded.catch((error) => {
  document.body.dataset.state = "failed";
  problem(`The file cannot be run here: ${error.message || error}`);
});
