// The explorer in a real Chromium: what a visitor does, and what must come of it.
//
// The environment tells CHROMIUM; PAGE, the URL of the page with a bundle; EMPTY_PAGE, of one
// without; BUNDLE, a bundle's folder, and DAMAGED, one with a damaged encoder; EXPECTED, a JSON
// file of what the same graphs give in Python: `labels`, one a test image, and `centre`, the image
// [H * W] decoded from the zero latent; and PYTHON, one that has onnxruntime.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { after, test } from "node:test";

import { closeBrowser, withPage } from "./browser.mjs";

after(closeBrowser);

const { PAGE, EMPTY_PAGE, BUNDLE, DAMAGED, EXPECTED, PYTHON } = process.env;
const expected = JSON.parse(await readFile(EXPECTED, "utf8"));

const DESKTOP = { viewport: { width: 1280, height: 900 } };
const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

/** Opens the page and waits for its first image; also fails for requests that fail or go abroad. */
function explore(url, options, use, prepare = () => {}) {
  return withPage(
    "about:blank",
    async (page) => {
      const astray = [];
      page.on("request", (request) => {
        if (!request.url().startsWith(url) && !/^(data|blob):/.test(request.url())) {
          astray.push(`${request.url()} is elsewhere`);
        }
      });
      page.on("requestfailed", (request) => astray.push(`${request.url()} failed`));
      await prepare(page);
      await page.goto(url);
      await opened(page);
      await use(page);
      assert.deepEqual(astray, []);
    },
    options,
  );
}

/** Waits until the first image is decoded. */
const opened = (page) =>
  page.waitForFunction(() => document.querySelector(".origin")?.textContent);

/** The grey levels that a canvas shows. */
function pixelsOf(page, selector) {
  return page.$eval(selector, (canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return Array.from(data).filter((_, index) => index % 4 === 0);
  });
}

const latentOf = (page) =>
  page.$$eval(".sliders input", (inputs) => inputs.map((input) => input.valueAsNumber));

const labelOf = (page) => page.$eval(".name", (output) => output.value);

const CLASSIFY = `
import json, sys
import numpy as np, onnxruntime
classifier = onnxruntime.InferenceSession(sys.argv[1])
(image,) = classifier.get_inputs()
pixels = np.array(json.load(sys.stdin), np.uint8).reshape(1, *image.shape[1:])
print(classifier.run(["label"], {"image": pixels})[0][0])
`;

/**
 * Draws by `draw` and waits for the label that the prepared image gets in Python; then draws the
 * same over a picked image of another label, which must not stay.
 */
async function drawAndCompareLabels(page, draw, pick) {
  await draw();
  const label = await labelInPython(page);
  await became(() => labelOf(page), label);

  const other = expected.labels.findIndex((each) => each !== label);
  assert.notEqual(other, -1, `every test image is labelled ${label}, as the drawing is`);
  await pick(other);
  await became(() => labelOf(page), expected.labels[other]);
  await draw();
  assert.equal(await labelInPython(page), label);
  await became(() => labelOf(page), label);
}

/** The label that the classifier gives the prepared image in Python. */
async function labelInPython(page) {
  await page.evaluate(async () => {
    for (let frame = 0; frame < 2; frame++) {
      await new Promise(requestAnimationFrame); // the last line shows in the next one
    }
  });
  const input = JSON.stringify(await pixelsOf(page, ".prepared"));
  return execFileSync(PYTHON, ["-c", CLASSIFY, `${BUNDLE}/classifier.onnx`], { input })
    .toString()
    .trim();
}

/** Waits until what `look` returns is other than `before`, and returns it. */
async function changed(look, before) {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const now = await look();
    if (JSON.stringify(now) !== JSON.stringify(before)) {
      return now;
    }
    assert.ok(Date.now() < deadline, "nothing changed");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Waits until `look` returns `value`. */
async function became(look, value) {
  for (let now = await look(); now !== value; ) {
    now = await changed(look, now);
  }
}

/** Where a fraction of an element's width and height lies on the screen. */
async function pointIn(page, selector, across, down) {
  const locator = page.locator(selector);
  await locator.scrollIntoViewIfNeeded();
  const { x, y, width, height } = await locator.boundingBox();
  return { x: x + across * width, y: y + down * height };
}

test("with a mouse, on a desktop", () =>
  explore(PAGE, DESKTOP, async (page) => {
    const decoded = () => pixelsOf(page, ".decoded");
    const prepared = () => pixelsOf(page, ".prepared");
    const latent = () => latentOf(page);
    const origin = () => page.textContent(".origin");
    const marker = () => page.$eval(".marker", (element) => element.style.transform);

    // Picked images get the label that onnxruntime gives them in Python.
    let seen = await prepared();
    for (const index of [3, 7, 0]) {
      await page.click(`.thumbs label:nth-child(${index + 1})`);
      seen = await changed(prepared, seen);
      await became(() => labelOf(page), expected.labels[index]);
      assert.match(await page.textContent(".truth"), /^true label \d$/);
    }
    assert.deepEqual(await decoded(), await pixelsOf(page, ".reconstruction"));
    assert.equal(await origin(), "Decoded from the test image");
    assert.match(await page.textContent(".reading"), /^read as \d$/);

    // A drawing is seen, labelled and encoded while it is drawn.
    const draw = async () => {
      const before = await prepared();
      const start = await pointIn(page, ".sheet", 0.3, 0.2);
      const corner = await pointIn(page, ".sheet", 0.7, 0.2);
      const end = await pointIn(page, ".sheet", 0.45, 0.8);
      await page.mouse.move(start.x, start.y);
      await page.mouse.down();
      await page.mouse.move(corner.x, corner.y, { steps: 5 });
      await page.mouse.move(end.x, end.y, { steps: 5 });
      await changed(prepared, before);
      await became(origin, "Decoded from the drawing");
      await page.mouse.up();
    };
    await drawAndCompareLabels(page, draw, (index) =>
      page.click(`.thumbs label:nth-child(${index + 1})`),
    );
    assert.equal(await page.textContent(".truth"), "");
    assert.equal(await page.locator(".scores tr").count(), 10);
    assert.equal(await page.locator(".scores .chosen").count(), 1);
    assert.equal(await page.locator(".thumbs :checked").count(), 0);

    // Cleared, nothing is claimed any more; the latent stays.
    const drawnLatent = await latent();
    await page.click(".clear");
    await became(() => labelOf(page), "–");
    assert.ok((await prepared()).every((value) => value === 0));
    assert.deepEqual(await latent(), drawnLatent);

    // The centre decodes to what the decoder gives in Python.
    let picture = await decoded();
    await page.click(".centre");
    await became(origin, "Decoded from the centre of the prior");
    picture = await changed(decoded, picture);
    assert.deepEqual(await latent(), [0, 0, 0]);
    const differences = picture.map((value, index) => Math.abs(value - expected.centre[index]));
    assert.ok(Math.max(...differences) <= 1);

    // A slider moves by keyboard, and the image with it.
    await page.focus(".sliders label:nth-child(2) input");
    await page.keyboard.press("PageUp");
    picture = await changed(decoded, picture);
    const [first, second, third] = await latent();
    assert.ok(first === 0 && second > 0 && third === 0);
    assert.equal(await page.textContent(".sliders label:nth-child(2) .value"), second.toFixed(2));

    await page.click(".random");
    picture = await changed(decoded, picture);
    const drawn = await latent();
    assert.match(await page.textContent(".place"), /^Nearest test image: \d$/);

    // The map: hovering shows an image; a click, a drag and an arrow key go to one.
    await hoverSomePoint(page);
    const middle = await pointIn(page, ".field", 0.5, 0.5);
    const aside = await pointIn(page, ".field", 0.2, 0.3);
    await page.mouse.click(middle.x, middle.y);
    await changed(decoded, picture);
    assert.notDeepEqual(await latent(), drawn);
    assert.match(await page.textContent(".place"), /^Test image: \d$/);
    let place = await marker();
    await page.mouse.down();
    await page.mouse.move(aside.x, aside.y, { steps: 4 });
    await page.mouse.up();
    place = await changed(marker, place);
    await page.keyboard.press("ArrowRight");
    await changed(marker, place);
  }));

/** Moves the mouse over the map's points until one shows its image. */
async function hoverSomePoint(page) {
  for (let step = 1; step < 20; step++) {
    const { x, y } = await pointIn(page, ".field", step / 20, 0.5);
    await page.mouse.move(x, y);
    await page.waitForTimeout(50);
    if (await page.isVisible(".preview")) {
      assert.ok((await pixelsOf(page, ".preview canvas")).some((value) => value > 0));
      return;
    }
  }
  assert.fail("no preview at any point of the map");
}

test("with a finger, on a phone", () =>
  explore(PAGE, PHONE, async (page) => {
    const prepared = () => pixelsOf(page, ".prepared");
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.equal(width, PHONE.viewport.width);

    const seen = await prepared();
    await page.locator(".thumbs label:nth-child(2)").tap();
    await changed(prepared, seen);

    // A finger that moves over the sheet draws, and does not scroll the page.
    const draw = async () => {
      const before = await prepared();
      const start = await pointIn(page, ".sheet", 0.5, 0.2);
      const end = await pointIn(page, ".sheet", 0.5, 0.8);
      const scrolled = await page.evaluate(() => window.scrollY);
      await swipe(page, start, end);
      await changed(prepared, before);
      assert.equal(await page.evaluate(() => window.scrollY), scrolled);
    };
    await drawAndCompareLabels(page, draw, (index) =>
      page.locator(`.thumbs label:nth-child(${index + 1})`).tap(),
    );

    await page.locator(".clear").tap();
    await became(() => labelOf(page), "–");
    await page.locator(".sheet").tap();
    await changed(() => labelOf(page), "–");

    await page.locator(".field").tap();
    await page.waitForSelector(".marker:not(.near)", { state: "attached" });

    // Two fingers that part zoom into the map, and the page stays where it is.
    const map = () => page.$eval(".field canvas", (canvas) => canvas.toDataURL());
    const scrolled = await page.evaluate(() => window.scrollY);
    const whole = await map();
    const touch = await touching(page);
    for (const [step, apart] of [0.1, 0.3, 0.6].entries()) {
      const left = await pointIn(page, ".field", 0.5 - apart / 2, 0.5);
      const right = await pointIn(page, ".field", 0.5 + apart / 2, 0.5);
      const fingers = [{ id: 0, ...left }, { id: 1, ...right }];
      await touch(step === 0 ? "touchStart" : "touchMove", fingers);
    }
    await touch("touchEnd", []);
    await changed(map, whole);
    assert.equal(await page.evaluate(() => window.scrollY), scrolled);
    await page.locator(".whole").tap();
    await became(map, whole);
  }));

async function touching(page) {
  const client = await page.context().newCDPSession(page);
  return (type, touchPoints) => client.send("Input.dispatchTouchEvent", { type, touchPoints });
}

async function swipe(page, start, end) {
  const touch = await touching(page);
  await touch("touchStart", [start]);
  for (let step = 1; step <= 5; step++) {
    const y = start.y + ((end.y - start.y) * step) / 5;
    await touch("touchMove", [{ x: start.x, y }]);
  }
  await touch("touchEnd", []);
}

test("what cannot be opened is named in the page, which goes on with what it has", () =>
  explore(PAGE, DESKTOP, async (page) => {
    await dropFolder(page, DAMAGED);
    await page.waitForSelector("#status.error");
    assert.match(await page.textContent("#status"), /^encoder\.onnx is damaged: .*again$/);

    const picture = await pixelsOf(page, ".decoded");
    await page.click(".random");
    await changed(() => pixelsOf(page, ".decoded"), picture);

    await page.setInputFiles("input[webkitdirectory]", `${dirname(BUNDLE)}/samples`);
    await became(
      () => page.textContent("#status"),
      "manifest.json cannot be read (it is not in the folder); is this a bundle's folder?",
    );

    // Of a run's folder it is the bundle.
    await dropFolder(page, dirname(BUNDLE));
    await became(() => page.textContent("#status"), "");
    await page.setInputFiles(".file input", `${BUNDLE}/README.md`);
    await page.waitForSelector("#status.error");
    assert.match(await page.textContent("#status"), /^README\.md is no image that this browser/);
  }));

test("an image file is shown, what is decoded is read and saved, and a link restores both", () =>
  explore(PAGE, DESKTOP, async (page) => {
    const prepared = () => pixelsOf(page, ".prepared");
    const origin = () => page.textContent(".origin");

    // A picture of the decoded image, saved and chosen as a file, is the same image.
    await page.click(".centre");
    await became(origin, "Decoded from the centre of the prior");
    await page.waitForFunction(() => document.querySelector(".reading").textContent);
    const [download] = await Promise.all([page.waitForEvent("download"), page.click(".save")]);
    assert.match(download.suggestedFilename(), /\.png$/);
    const decoded = await pixelsOf(page, ".decoded");
    const before = await prepared();
    await page.setInputFiles(".file input", {
      name: "saved.png",
      mimeType: "image/png",
      buffer: await readFile(await download.path()),
    });
    assert.deepEqual(await changed(prepared, before), decoded);
    await became(origin, "Decoded from saved.png");
    const label = await labelInPython(page);
    await became(() => labelOf(page), label);

    // Between what was held and what came next, the slider's ends are the two.
    await page.click(".centre");
    await became(origin, "Decoded from the centre of the prior");
    await page.click(".hold");
    await page.click(".thumbs label:nth-child(2)");
    await became(origin, "Decoded from the test image");
    const there = await latentOf(page);
    await page.focus(".between input");
    await page.keyboard.press("Home");
    await became(origin, "Decoded from a point between two images");
    assert.deepEqual(await latentOf(page), [0, 0, 0]);
    await page.keyboard.press("End");
    await became(async () => JSON.stringify(await latentOf(page)), JSON.stringify(there));

    // The address leads back to the picked image and to another latent.
    await page.click(".thumbs label:nth-child(4)");
    await became(origin, "Decoded from the test image");
    await page.focus(".sliders label:nth-child(2) input");
    await page.keyboard.press("PageUp");
    await page.waitForFunction(() => /^#image=3&z=/.test(location.hash));
    await page.waitForTimeout(400);
    const [latent, seen] = [await latentOf(page), await prepared()];
    await page.goto("about:blank");
    await page.goBack();
    await became(origin, "Decoded from the link");
    assert.deepEqual(await prepared(), seen);
    (await latentOf(page)).forEach((value, i) => assert.ok(Math.abs(value - latent[i]) <= 0.02));
  }));

const watchImagesOnMap = (page) =>
  page.addInitScript(() => {
    const { drawImage } = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.drawImage = function (...given) {
      window.drawnOnMap ||= this.canvas.closest(".field") !== null;
      return drawImage.apply(this, given);
    };
  });

test("the map zooms to images, and shows the classes that are chosen", () => {
  const use = async (page) => {
    const map = () => page.$eval(".field canvas", (canvas) => canvas.toDataURL());
    await page.click(".field");
    const whole = await map();
    for (let step = 0; step < 4; step++) {
      await page.keyboard.press("+");
    }
    await changed(map, whole);
    await became(() => page.evaluate(() => window.drawnOnMap), true);
    await page.click(".whole");
    await became(map, whole);

    const className = await page.textContent(".legend li:nth-child(2) button");
    await page.click(".legend li:nth-child(2) button");
    assert.equal(await page.getAttribute(".legend li:nth-child(2) button", "aria-pressed"), "true");
    await changed(map, whole);
    const { x, y } = await pointIn(page, ".field", 0.5, 0.5);
    await page.mouse.click(x, y);
    await became(() => page.textContent(".place"), `Test image: ${className}`);
  };
  return explore(PAGE, DESKTOP, use, watchImagesOnMap);
});

/** Drops a folder on the page as a file manager does. */
async function dropFolder(page, folder) {
  const client = await page.context().newCDPSession(page);
  const data = { items: [], files: [folder], dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"]) {
    await client.send("Input.dispatchDragEvent", { type, x: 640, y: 450, data });
  }
}

test("without labels and an SVM nothing is said of classes, and the map shows its images", () =>
  explore(
    PAGE,
    DESKTOP,
    async (page) => {
      assert.equal(await page.locator(".verdict").count(), 0);
      const before = await pixelsOf(page, ".prepared");
      await page.click(".thumbs label:nth-child(5)");
      await changed(() => pixelsOf(page, ".prepared"), before);
      assert.match(await page.textContent(".place"), /^Nearest test image \d+ of \d+$/);
      assert.equal(await page.locator(".legend li").count(), 0);
      assert.equal(await page.textContent(".reading"), "");
      await hoverSomePoint(page);
      assert.match(await page.textContent(".preview figcaption"), /^\d+$/);
    },
    async (page) => {
      const samples = JSON.parse(await readFile(`${BUNDLE}/explorer.json`, "utf8"));
      samples.map.labels = samples.images.labels = null;
      const unlabelled = JSON.stringify(samples);
      await page.route("**/explorer.json", (route) =>
        route.fulfill({ contentType: "application/json", body: unlabelled }),
      );
      await page.route("**/manifest.json", async (route) => {
        const manifest = await (await route.fetch()).json();
        const { "svm.onnx": _, ...files } = manifest.files;
        files["explorer.json"].sha256 = createHash("sha256").update(unlabelled).digest("hex");
        const { sha256: __, ...unsealed } = { ...manifest, files, score_labels: null };
        const text = (value) => `${JSON.stringify(value, null, 2)}\n`;
        const sha256 = createHash("sha256").update(text(unsealed)).digest("hex");
        const body = text({ ...unsealed, sha256 });
        await route.fulfill({ contentType: "application/json", body });
      });
    },
  ));

test("a page without a bundle asks for one and opens it", async () => {
  const errors = await withPage(
    EMPTY_PAGE,
    async (page) => {
      await page.waitForSelector(".drop .choose", { state: "visible" });
      await page.setInputFiles("input[webkitdirectory]", BUNDLE);
      await opened(page);
      await page.waitForFunction(() => document.querySelector("#status").textContent === "");
      assert.ok(await page.isHidden(".drop"));
      assert.equal(await labelOf(page), expected.labels[0]);
    },
    DESKTOP,
  ).then(
    () => "",
    (error) => error.message,
  );
  // A browser itself logs that the manifest it looked for is not there.
  assert.match(errors, /^the page at .* had errors:\n.*404.*bundle\/manifest\.json\)$/);
});
