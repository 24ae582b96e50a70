// One picture to every variant, one request after the other; what comes back is shown as it is.

const PHASES = ["receive", "decode", "queue", "copy_in", "inference", "copy_out", "deliver", "encode", "other"];
const BARS = 3; // classes that a card shows
const KEPT = 50; // requests whose median is shown
const ENOUGH = 10; // requests before two medians are compared
const RETRY_MS = 2000;

const element = (id) => document.getElementById(id);
const cards = new Map(); // variant -> { root, card, seen: [{ phases, total }] }
let picture = null; // a Blob
let running = false;

const milliseconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(1)} ms`;
const pause = (time) => new Promise((done) => setTimeout(done, time));
const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 ? 1 : 0)} MiB`;
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const make = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

async function ask(path, options = {}) {
  const key = element("key").value;
  const response = await fetch(path, { ...options, headers: { ...options.headers, ...(key && { "X-API-Key": key }) } });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw Object.assign(new Error(problem.detail || `the service answered ${response.status}`), { status: response.status });
}

function say(text) {
  if (element("message").textContent !== text) element("message").textContent = text;
}

function unanswered(error) {
  say(error.status === 401 ? "The service needs an API key: type it in above." : `The service does not answer: ${error.message}`);
}

async function loadVariants() {
  try {
    const { variants, checkpoint } = await (await ask("variants")).json();
    element("network").textContent = [
      checkpoint.architecture,
      `${checkpoint.classes.length} classes`,
      `${checkpoint.input_size} × ${checkpoint.input_size} pixels`,
    ].filter(Boolean).join(" · ");
    for (const card of variants) describe(card);
    say("");
    if (variants.some((card) => card.state === "starting")) setTimeout(loadVariants, RETRY_MS);
  } catch (error) {
    unanswered(error);
    if (error.status !== 401) setTimeout(loadVariants, RETRY_MS);
  }
}

function describe(card) {
  if (!cards.has(card.name)) {
    const root = element("card").content.firstElementChild.cloneNode(true);
    element("variants").append(root);
    cards.set(card.name, { root, seen: [] });
  }
  const { root } = Object.assign(cards.get(card.name), { card });
  root.dataset.variant = card.name;
  root.querySelector("h2").textContent = card.name;
  root.querySelector(".state").textContent = card.state;
  root.querySelector(".state").dataset.state = card.state;
  root.querySelector(".runs").textContent = [card.dtype, card.device, card.backend].filter(Boolean).join(" · ");
  root.querySelector(".reason").textContent = card.reason;
  root.querySelector(".doubt").textContent = card.sample?.warning ?? "";
}

async function predict(name) {
  const entry = cards.get(name);
  const response = await ask(`predict/${name}?top_k=${Math.min(BARS, entry.card.classes.length)}`, { method: "POST", body: picture, headers: { "Content-Type": picture.type } });
  const answer = await response.json();
  const timing = Object.fromEntries(
    response.headers.get("Server-Timing").split(", ").map((part) => part.split(";dur=")).map(([phase, value]) => [phase, Number(value)]),
  );
  entry.seen = [...entry.seen, timing].slice(-KEPT);
  entry.label = answer.predictions[0].label;
  show(entry, answer);
}

function show({ root, card, seen }, answer) {
  const [prediction] = answer.predictions;
  const reference = cards.get("fp32");
  const label = root.querySelector(".label");
  label.textContent = prediction.label;
  if (reference?.label && reference.label !== prediction.label) label.append(make("small", `fp32 says ${reference.label}`));
  root.querySelector(".bars").replaceChildren(...prediction.top_k.map(bar));

  const phases = Object.fromEntries(PHASES.map((phase) => [phase, median(seen.map((timing) => timing[phase] ?? 0))]));
  const total = median(seen.map((timing) => PHASES.reduce((sum, phase) => sum + (timing[phase] ?? 0), 0)));
  root.querySelector(".time b").textContent = milliseconds(total);
  root.querySelector(".time span").textContent = seen.length === 1 ? "in the service" : `in the service, median of ${seen.length}`;
  const strip = root.querySelector(".phases");
  strip.replaceChildren(...PHASES.map((phase) => tint(make("i"), phase, phases[phase])));
  strip.ariaLabel = PHASES.map((phase) => `${phase} ${milliseconds(phases[phase])}`).join(", ");
  strip.title = strip.ariaLabel;
  const { sample } = card;
  const facts = {
    ...(sample && { [`accuracy on ${sample.images} images`]: percent(sample.accuracy) }),
    "forward pass": milliseconds(phases.inference),
    "speed of the forward pass": speed(card, seen),
    "memory for the batch": mebibytes(answer.memory.peak_bytes),
    "weights in memory": mebibytes(card.parameter_bytes + card.buffer_bytes),
    "file on disk": mebibytes(card.serialized_bytes),
  };
  root.querySelector("dl").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  for (const part of root.querySelectorAll(".answer, .cost")) part.hidden = false;
  root.querySelector(".reason").textContent = "";
}

// How the medians compare, once there are a few, with the variant that this one is fairly held against.
function speed(card, seen) {
  const reference = cards.get(card.reference) ?? cards.get("fp32");
  if (!reference || reference.card === card) return "reference";
  if (card.reference !== reference.card.name && card.device !== reference.card.device) return "no fair reference";
  if (Math.min(seen.length, reference.seen.length) < ENOUGH) return "keep measuring";
  const inference = (timings) => median(timings.map((timing) => timing.inference));
  return `${(inference(reference.seen) / inference(seen)).toFixed(1)} × ${reference.card.name}`;
}

function bar({ label, probability }) {
  const item = make("li");
  const strip = make("i");
  strip.style.setProperty("--part", percent(probability).replace(" ", ""));
  item.append(Object.assign(make("span", label), { title: label }), strip, make("span", percent(probability)));
  return item;
}

function tint(node, phase, part) {
  node.style.setProperty("--hue", `var(--${phase})`);
  node.style.setProperty("--part", part);
  return node;
}

async function run() {
  if (running || !picture) return;
  running = true;
  do {
    const shown = picture;
    for (const [name, { root, card }] of cards) {
      if (card.state !== "ready") continue;
      try {
        await predict(name);
        say("");
      } catch (error) {
        root.querySelector(".reason").textContent = error.message;
        if (error.status < 500) {
          say(error.message);
          element("repeat").checked = false;
        } else {
          if (!error.status) unanswered(error); // a service that is gone gives no status at all
          await pause(RETRY_MS);
        }
      }
      if (picture !== shown) break;
    }
    if (picture === shown && !element("repeat").checked) break;
    await new Promise(requestAnimationFrame);
  } while (true);
  running = false;
}

function choose(blob, pressed = null) {
  picture = blob;
  const image = element("preview");
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
  image.onload = () => image.classList.toggle("small", image.naturalWidth < 100);
  image.alt = "the chosen picture";
  image.hidden = false;
  element("hint").hidden = true;
  for (const button of element("samples").children) button.ariaPressed = String(button === pressed);
  for (const entry of cards.values()) entry.seen = [];
  run();
}

// The pictures come with the key, which a plain image element cannot send.
async function loadSamples() {
  try {
    const samples = await (await ask("page/samples.json")).json();
    const blobs = await Promise.all(samples.map(async ({ path }) => (await ask(path)).blob()));
    element("samples").replaceChildren(...samples.map(({ label }, index) => sampleButton(label, blobs[index])));
    element("samples-title").textContent = samples.length ? "Samples with known labels" : "This network came without sample pictures.";
  } catch (error) {
    unanswered(error);
  }
}

function sampleButton(label, blob) {
  const button = make("button");
  const image = Object.assign(document.createElement("img"), { src: URL.createObjectURL(blob), alt: label });
  image.onload = () => image.classList.toggle("small", image.naturalWidth < 100);
  Object.assign(button, { type: "button", title: label, ariaPressed: "false" });
  button.append(image);
  button.addEventListener("click", () => choose(blob, button));
  return button;
}

function accept(files) {
  const [file] = [...files].filter((one) => one.type.startsWith("image/"));
  if (file) choose(file);
  else if (files.length) say("That is not a picture: choose a PNG, JPEG or WebP file.");
}

const drop = element("drop");
element("file").addEventListener("change", (event) => accept(event.target.files));
for (const kind of ["dragenter", "dragover"]) { // anywhere: a browser leaves the page for a file that misses the box
  document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => { event.preventDefault(); accept(event.dataTransfer.files); });
document.addEventListener("paste", (event) => accept(event.clipboardData.files));
element("repeat").addEventListener("change", run);
element("key").value = sessionStorage.getItem("key") ?? "";
element("key").addEventListener("change", (event) => { sessionStorage.setItem("key", event.target.value); loadSamples(); loadVariants().then(run); });
element("metrics").addEventListener("click", (event) => { // a link cannot carry the key
  if (!element("key").value) return;
  event.preventDefault();
  ask("metrics").then((response) => response.blob()).then((text) => location.assign(URL.createObjectURL(text)), unanswered);
});
element("legend").append(...PHASES.map((phase) => { const item = make("li"); item.append(tint(make("i"), phase, 0), phase.replace("_", " ")); return item; }));
loadSamples();
loadVariants();
