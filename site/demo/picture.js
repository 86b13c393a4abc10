// A file to a picture, upright and on white, as `load_image` does it; or the reason why not, in words.

import {centre} from "./resize.js";

const MEGABYTES = 50;             // as much as the panels of the notebooks take
const LONGEST_SIDE = 16384;       // what every browser can draw
const LONGEST_SHAPE = 50;         // times longer than wide: as `preprocess`

/** Why a file is not looked at: the message is for the reader. */
export class Refused extends Error {}

/** A file as a picture to be cut: `cut(shorter, side)` gives its centre as side × side pixels, three bytes each.
 * file: a Blob. name: what to call it in a refusal. largest: the number of pixels that is not too many. */
export async function open(file, name, largest) {
  if (file.size > MEGABYTES * 2 ** 20) {
    throw new Refused(`${name} has ${Math.round(file.size / 2 ** 20)} MB. Up to ${MEGABYTES} MB are read here.`);
  }
  let bitmap;
  try {      // colours as they are stored, which is how Pillow reads them
    bitmap = await createImageBitmap(file, {imageOrientation: "from-image", colorSpaceConversion: "none"});
  } catch {
    throw new Refused(`${name} is not a picture, or damaged, or of a kind that this browser does not read. ` +
                      "JPEG, PNG, WebP and GIF are read everywhere.");
  }
  const {width, height} = bitmap, long = Math.max(width, height), short = Math.min(width, height);
  const why = width * height > largest || long > LONGEST_SIDE ? "That is too large: scale it down."
    : long > LONGEST_SHAPE * short ? `That is more than ${LONGEST_SHAPE} times longer than wide: crop it.` : "";
  if (why) {
    bitmap.close();
    throw new Refused(`${name} is ${width} × ${height} pixels. ${why}`);
  }
  return {cut: (shorter, side) => centre(reader(bitmap), width, height, shorter, side), close: () => bitmap.close()};
}

function reader(bitmap) {
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  return (top, rows) => {
    canvas.width = bitmap.width;
    canvas.height = rows;
    pen.fillStyle = "white";
    pen.fillRect(0, 0, bitmap.width, rows);
    pen.drawImage(bitmap, 0, -top);
    return pen.getImageData(0, 0, bitmap.width, rows).data;
  };
}
