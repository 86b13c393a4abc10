// The page: pictures come in, the answer goes out; what goes wrong is said, and the last picture stays.

import {fetched, loadNetwork} from "./network.js";
import {overlay, place, plain} from "./overlay.js";
import {Refused, open} from "./picture.js";

const part = name => document.getElementById(`demo-${name}`);
const still = part("still"), canvas = part("canvas"), status = part("status"), trouble = part("trouble");
const answers = part("answers"), shown = part("shown"), again = part("again"), own = part("own");
const photographs = [...document.querySelectorAll("[data-photograph]")];
const pen = canvas.getContext("2d");

let settings, network;      // once they are loaded
let current;                // what is on the screen: {name, pixels}, and with an answer {answer, index}
let latest = 0;             // counts the pictures asked for: what comes of an older one is dropped

function percent(share) {
  const said = share < 0.005 ? "under 1" : share > 0.995 ? "over 99" : Math.round(100 * share);
  return `${said}\u00a0%`;
}

function draw() {
  const {name, pixels, answer, index} = current, mapped = answer && shown.checked;
  pen.putImageData(mapped ? overlay(pixels, settings.drawn, answer.map(index), settings.cells, settings)
                          : plain(pixels, settings.drawn), 0, 0);
  still.hidden = true;
  canvas.hidden = false;
  canvas.setAttribute("aria-label", mapped ? `${name}, with the map of ${settings.classes[index]}` : name);
}

/** Draw the map of one of the answers, and say where it is brightest. */
function choose({index, probability}) {
  current.index = index;
  for (const button of answers.children) button.setAttribute("aria-pressed", Number(button.value) === index);
  draw();
  status.textContent = `${settings.classes[index]}, ${percent(probability)}. ` +
    `Its map is brightest ${place(current.answer.map(index), settings.cells)}.`;
}

function button(answer) {
  const made = document.createElement("button"), share = document.createElement("span");
  made.type = "button";
  made.value = answer.index;
  made.style.setProperty("--share", answer.probability);
  share.textContent = percent(answer.probability);
  made.append(settings.classes[answer.index], " ", share);
  made.addEventListener("click", () => choose(answer));
  return made;
}

function show(picture, photograph) {
  current = picture;
  for (const button of photographs) button.setAttribute("aria-pressed", button === photograph);
}

/** Load the network, once; a failure does not count. */
function ready() {
  network ??= loadNetwork(settings).catch(error => {
    network = undefined;
    throw error;
  });
  return network;
}

/** Show a picture and ask the network about it. fetchFile: gives the file; name: what to call it; photograph: its
 * button, where it is one of the course's. */
async function look(fetchFile, name, photograph) {
  const turn = ++latest, outdated = () => turn !== latest;
  trouble.textContent = "";
  again.hidden = true;
  try {
    settings ??= await (await fetched("settings.json")).json();
    const picture = await open(await fetchFile(), name, settings.largest);
    const pixels = picture.cut(settings.shorter * settings.drawn / settings.side, settings.drawn);
    const seen = picture.cut(settings.shorter, settings.side);
    picture.close();
    if (outdated()) return;
    if (!current?.answer) {      // the first picture does not wait for the network
      show({name, pixels}, photograph);
      draw();
      status.textContent = `The network is being loaded: ${settings.megabytes} MB, once.`;
    }
    const answer = await (await ready())(seen);
    if (outdated()) return;
    show({name, pixels, answer}, photograph);
    answers.replaceChildren(...answer.top.map(button));
    choose(answer.top[0]);
  } catch (error) {
    if (outdated()) return;
    if (!current?.answer) status.textContent = "";
    if (error instanceof Refused) {
      trouble.textContent = error.message;
    } else {
      trouble.textContent = `This did not work: ${error.message}. ` +
        "Is there a connection, and is the browser a recent one?";
      again.hidden = false;
      again.onclick = () => look(fetchFile, name, photograph);
    }
  }
}

const lookAt = file => look(() => file, file.name || "The picture");

for (const photograph of photographs) {
  const {alt} = photograph.querySelector("img");
  const fetchFile = async () => (await fetched(`photographs/${photograph.dataset.photograph}.jpg`)).blob();
  photograph.addEventListener("click", () => look(fetchFile, alt, photograph));
}
own.addEventListener("click", () => { own.value = ""; });      // or the same file again would be no change
own.addEventListener("change", () => lookAt(own.files[0]));
shown.addEventListener("change", () => current && draw());
document.addEventListener("dragover", event => event.preventDefault());
document.addEventListener("drop", event => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) lookAt(file);
  else trouble.textContent = "That was no file. Save the picture first, then drop its file.";
});
document.addEventListener("paste", event => {
  const [file] = event.clipboardData.files;
  if (file) lookAt(file);
});

part("controls").hidden = false;
photographs[0].click();
